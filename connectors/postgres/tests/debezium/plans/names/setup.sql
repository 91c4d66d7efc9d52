CREATE DOMAIN dn AS name; CREATE TABLE t1(id int PRIMARY KEY, a name, b name NOT NULL, c name DEFAULT 'x', d name NOT NULL DEFAULT 'y', e dn, f dn NOT NULL); CREATE TABLE t2(a name PRIMARY KEY, b int); ALTER TABLE t1 REPLICA IDENTITY FULL;
INSERT INTO t1 VALUES (1,'a','b','c','d','e','f'); INSERT INTO t2 VALUES ('k',1);

INSERT INTO t1 VALUES (2,'a','b','c','d','e','f')
UPDATE t1 SET a = 'z', b = 'z'; DELETE FROM t1
INSERT INTO t2 VALUES ('m', 5); UPDATE t2 SET b = 7; UPDATE t2 SET a = 'n' WHERE a = 'm'; DELETE FROM t2

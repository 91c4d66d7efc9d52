CREATE EXTENSION ltree; CREATE EXTENSION citext; CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('sad','ok'); CREATE DOMAIN dchar AS "char"; CREATE DOMAIN dvc AS varchar(7); CREATE DOMAIN dmood AS mood; CREATE DOMAIN dltree AS ltree; CREATE DOMAIN dname AS name;
CREATE TABLE t2(id int PRIMARY KEY, a "char" NOT NULL, b text, c text NOT NULL, d varchar(5) NOT NULL DEFAULT 'def', e varchar(5) DEFAULT 'def', f mood, g mood NOT NULL, h name, i char(3), j name NOT NULL, k dvc, l dvc NOT NULL, m dmood, n dname, o dchar, p json, q citext, r uuid, s xml, t text[], u inet, v dltree, w ltree);
INSERT INTO t2 VALUES (1,'z','Top.B','x','y','z','sad','ok','n','i','j','k','l','sad','n','o','1','q',NULL,'<a/>','{a}','1.2.3.4','a','b'),(2,'z','Top.C','x','y','z','sad','ok','n','i','j','k','l','sad','n','o','1','q',NULL,'<a/>','{a}','1.2.3.4','a','b'),(3,'z',NULL,'x','y',NULL,NULL,'ok',NULL,NULL,'j',NULL,'l',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE t3(id int PRIMARY KEY, a text, b text NOT NULL); ALTER TABLE t3 ALTER a SET STORAGE EXTERNAL; ALTER TABLE t3 ALTER b SET STORAGE EXTERNAL;
CREATE TABLE t4(a text PRIMARY KEY, b name, c varchar(9)); CREATE TABLE t5(a text, b mood); ALTER TABLE t5 REPLICA IDENTITY FULL;
INSERT INTO t5 VALUES (NULL,NULL);

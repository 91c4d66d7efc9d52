INSERT INTO t2 VALUES (11,'z','Top.B','x','y','z','sad','ok','n','i','j','k','l','sad','n','o','1','q',NULL,'<a/>','{a}','1.2.3.4','a','b'),(12,'z',NULL,'x','y',NULL,NULL,'ok',NULL,NULL,'j',NULL,'l',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL)
UPDATE t2 SET a = 'w'
UPDATE t2 SET id = 20 WHERE id = 2
DELETE FROM t2 WHERE id < 3; DELETE FROM t2
INSERT INTO t3 VALUES (1, repeat('aü', 3000), repeat('bü', 3000)); UPDATE t3 SET id = id; UPDATE t3 SET id = 2; DELETE FROM t3
INSERT INTO t4 VALUES ('k','n','v'); UPDATE t4 SET a = 'l'; UPDATE t4 SET b = NULL; DELETE FROM t4
INSERT INTO t5 VALUES (NULL,'sad'); UPDATE t5 SET a = 'x'; DELETE FROM t5

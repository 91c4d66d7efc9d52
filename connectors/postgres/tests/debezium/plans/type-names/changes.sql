INSERT INTO t1 VALUES (2, 'p2', 'z2', 'a2', '{p1}', '{z1}', '{a1}')
UPDATE t1 SET p = 'p2' WHERE id = 1; DELETE FROM t1 WHERE id = 2
INSERT INTO t2 VALUES (2, 'y', 3, 4, '{y}', 'o2', 'q1', 'c1')
UPDATE t2 SET v = 7; DELETE FROM t2 WHERE id = 1
INSERT INTO t3 VALUES (2, 'l1', 'm1', 'al', 'Al', 2.5, 'r', 'cm', 'no text', '{no text}'); UPDATE t3 SET l = NULL WHERE id = 1
INSERT INTO t4 VALUES ('y', 2)
INSERT INTO t5 VALUES (2,'v','u',2,'y',NULL,'{v}','{2}')
UPDATE t5 SET b = NULL WHERE id = 1; DELETE FROM t5 WHERE id = 2
INSERT INTO t6 VALUES ('v', 2); UPDATE t6 SET v = 3 WHERE k = 'u'; DELETE FROM t6 WHERE k = 'v'
INSERT INTO t7 VALUES ('v', 2, 2); UPDATE t7 SET v = 3 WHERE k = 'u'; DELETE FROM t7 WHERE k = 'v'

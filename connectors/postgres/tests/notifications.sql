CREATE TABLE a(id int PRIMARY KEY);
INSERT INTO a SELECT generate_series(1, 5);
CREATE TABLE b(id int, k text, PRIMARY KEY (id, k));
INSERT INTO b VALUES (1, 'x'), (1, 'y'), (2, 'x');
CREATE TABLE e(id int PRIMARY KEY);
CREATE TABLE n(v int);
ALTER TABLE n REPLICA IDENTITY FULL;
INSERT INTO n VALUES (1), (2);
CREATE TABLE signals(id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(4096));

UPDATE "T.with ""dots"" and spaces" SET "id" = 2, "ünï" = 1e100; INSERT INTO "ÄÖ" VALUES (2,NULL); UPDATE "ÄÖ" SET "Ключ" = 5 WHERE "Ключ" = 1
BEGIN; INSERT INTO nokey VALUES (2,'a'); SAVEPOINT a; UPDATE nokey SET b = 'z' WHERE a = 2; SAVEPOINT b; DELETE FROM nokey WHERE a = 1; ROLLBACK TO b; INSERT INTO "lower.UPPER" VALUES ('a','b'); RELEASE a; TRUNCATE nokey, "ÄÖ"; INSERT INTO nokey VALUES (9,'after'); SELECT pg_logical_emit_message(true, 'pre.fix "q"', 'in tx'); COMMIT
BEGIN; SELECT pg_logical_emit_message(false, 'p', 'not tx'); INSERT INTO nokey VALUES (10,'gone'); ROLLBACK
SELECT pg_logical_emit_message(true, 'b', '\x00ff10'::bytea); SELECT pg_logical_emit_message(true, '', '')
UPDATE "lower.UPPER" SET k = 'new' ; DELETE FROM "lower.UPPER"; DELETE FROM nokey; TRUNCATE "T.with ""dots"" and spaces"

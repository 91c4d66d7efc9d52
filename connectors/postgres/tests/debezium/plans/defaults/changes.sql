INSERT INTO d_int SELECT (jsonb_populate_record(NULL::d_int, '{"id":2,"w":1}')).*; UPDATE d_int SET id = 3 WHERE id = 2; DELETE FROM d_int
INSERT INTO d_big SELECT (jsonb_populate_record(NULL::d_big, '{"id":2,"i":1,"j":1,"a4":true}')).*; UPDATE d_big SET id = 3 WHERE id = 2; DELETE FROM d_big
INSERT INTO d_num SELECT (jsonb_populate_record(NULL::d_num, '{"id":2}')).*; UPDATE d_num SET id = 3 WHERE id = 2; DELETE FROM d_num
INSERT INTO d_text SELECT (jsonb_populate_record(NULL::d_text, '{"id":2,"b8":"q"}')).*; UPDATE d_text SET id = 3 WHERE id = 2; DELETE FROM d_text
INSERT INTO d_time SELECT (jsonb_populate_record(NULL::d_time, '{"id":2}')).*; UPDATE d_time SET id = 3 WHERE id = 2; DELETE FROM d_time
INSERT INTO d_ts SELECT (jsonb_populate_record(NULL::d_ts, '{"id":2,"b2":"2020-01-01","b3":"2020-01-01"}')).*; UPDATE d_ts SET id = 3 WHERE id = 2; DELETE FROM d_ts
INSERT INTO d_misc SELECT (jsonb_populate_record(NULL::d_misc, '{"id":2,"d4":"ok"}')).*; UPDATE d_misc SET id = 3 WHERE id = 2; DELETE FROM d_misc
INSERT INTO d_gen(id) VALUES (2); UPDATE d_gen SET id = 3 WHERE id = 2; DELETE FROM d_gen

CREATE SCHEMA "Odd.Schema é"; 
CREATE TABLE "T.with ""dots"" and spaces"("id" int PRIMARY KEY, "Col.A" int, "col""q" text, "ünï" numeric, "UPPER" bool, "select" text, "a$b" int, " lead" int, "1st" int);
CREATE TABLE "ÄÖ"("Ключ" int PRIMARY KEY, "値" text); CREATE TABLE "lower.UPPER"(k text, v text, PRIMARY KEY(v,k)); CREATE TABLE nokey(a int, b text); ALTER TABLE nokey REPLICA IDENTITY FULL;
CREATE TABLE "x_y"(id int PRIMARY KEY); CREATE TABLE "x-y"(id int PRIMARY KEY);
INSERT INTO "T.with ""dots"" and spaces" VALUES (1,2,'q"''\','1.5',true,'s',3,4,5); INSERT INTO "ÄÖ" VALUES (1,'値'); INSERT INTO "lower.UPPER" VALUES ('k"1','v\\2'); INSERT INTO nokey VALUES (1,'x'),(1,'x'),(NULL,NULL);

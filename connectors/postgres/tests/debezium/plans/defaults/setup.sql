CREATE EXTENSION citext;
CREATE EXTENSION hstore;
CREATE SCHEMA other;
CREATE TYPE mood AS ENUM ('sad','ok','it''s','a b');
CREATE TYPE "Weird" AS ENUM ('x','Y');
CREATE DOMAIN dom AS int DEFAULT 5;
CREATE DOMAIN domt AS text;
CREATE FUNCTION f() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''v''::text';
CREATE TABLE d_int(id int PRIMARY KEY, a int DEFAULT 1+1, b int DEFAULT -5, c int DEFAULT (-5), d int DEFAULT '7', e int DEFAULT 2147483647,
  f int DEFAULT length('abc'), g int DEFAULT 5::bigint, h int DEFAULT 3.7, i int DEFAULT NULL, j int DEFAULT (NULL::int),
  k int DEFAULT -length('x'), l int DEFAULT CASE WHEN true THEN 3 ELSE 4 END, m int DEFAULT COALESCE(NULL, 4), n int DEFAULT ' 8 ',
  o int DEFAULT extract(year from now()), p int DEFAULT (random()*10)::int, r int DEFAULT +6, s int DEFAULT 1e3,
  t int DEFAULT pg_backend_pid(), v int DEFAULT 7::smallint, w serial, x int DEFAULT 7::int);
CREATE TABLE d_big(id int PRIMARY KEY, a bigint DEFAULT 1, b bigint DEFAULT -9223372036854775808, c bigint DEFAULT 9223372036854775807,
  d bigint DEFAULT extract(epoch from now()), e smallint DEFAULT 5, f smallint DEFAULT -32768, g smallint DEFAULT '5',
  h smallint DEFAULT 1::smallint+1::smallint, i bigserial, j smallserial, k bigint DEFAULT 5::int, l bigint DEFAULT 1.6, m bigint DEFAULT -1,
  n smallint DEFAULT -1, o dom, p dom DEFAULT 6, q oid DEFAULT 5, r money DEFAULT 5, s money DEFAULT '5.5', t bool DEFAULT true,
  u bool DEFAULT 't', v bool DEFAULT 'yes', w bool DEFAULT false, x bool DEFAULT (NOT true), y bool DEFAULT 1=1, z bool DEFAULT random()>0.5,
  a1 bool DEFAULT 1::bool, a2 bool DEFAULT NULL::bool, a3 bool DEFAULT starts_with('a','b'), a4 bool NOT NULL DEFAULT 'on');
CREATE TABLE d_num(id int PRIMARY KEY, a numeric DEFAULT 1.50, b numeric DEFAULT -1.5, c numeric(6,2) DEFAULT 1.5,
  d numeric(6,2) DEFAULT -1.5, e numeric(6,2) DEFAULT 1.555, f numeric(6,2) DEFAULT 7, g numeric DEFAULT 7, h numeric DEFAULT 1e3,
  i numeric DEFAULT 1e-7, j numeric DEFAULT 'NaN', k numeric DEFAULT 'Infinity', l numeric(6,2) DEFAULT 'NaN', m numeric DEFAULT '12.50',
  n numeric DEFAULT round(2.5,1), o numeric(6,2) DEFAULT random(), p numeric DEFAULT 1.5+1, q float8 DEFAULT 1.5, r float8 DEFAULT -1.5,
  s float8 DEFAULT 'NaN', t float8 DEFAULT 'Infinity', u float8 DEFAULT '-Infinity', v float8 DEFAULT 1e308, w float4 DEFAULT 1.1,
  x float4 DEFAULT -1, y float8 DEFAULT random(), z float8 DEFAULT pi(), a1 float8 DEFAULT 1/3.0, a2 float4 DEFAULT 1e-10,
  a3 float8 DEFAULT 5, a4 numeric(6,2) DEFAULT '1e2', a5 numeric DEFAULT 10, a6 numeric(4,-2) DEFAULT 1200, a7 float8 DEFAULT '1.5'::numeric,
  a8 float4 DEFAULT 16777217, a9 numeric(6,2) DEFAULT 100, b1 numeric DEFAULT 0.00);
CREATE TABLE d_text(id int PRIMARY KEY, a text DEFAULT 'x' || 'y', b text DEFAULT 'it''s', c text DEFAULT '', d text DEFAULT now()::text,
  e text DEFAULT CURRENT_USER, f text DEFAULT session_user, g text DEFAULT 1::text, h text DEFAULT upper('x'), i text DEFAULT f(),
  j text DEFAULT f() || 'z', k varchar(5) DEFAULT 'abc', l char(5) DEFAULT 'ab', m varchar(3) DEFAULT NULL, n varchar DEFAULT 'a'||'b',
  o text DEFAULT E'a\nb\\c''d', p text DEFAULT CURRENT_TIMESTAMP::text, q text DEFAULT gen_random_uuid()::text,
  r text DEFAULT CASE WHEN true THEN 'a' ELSE 'b' END, s text DEFAULT ('a'), t text DEFAULT 'a'::varchar(3)::text,
  u text DEFAULT COALESCE('a','b'), v text DEFAULT 'has::cast', w text DEFAULT '(paren', x text DEFAULT 'now()',
  y text DEFAULT md5(random()::text), z text DEFAULT to_char(now(),'YYYY'), a1 citext DEFAULT 'ci', a2 name DEFAULT 'nm',
  a3 "char" DEFAULT 'c', a4 text DEFAULT current_setting('x.y', true), a5 domt DEFAULT 'dd', a6 text DEFAULT 'ünïcödé "q" \ back',
  a7 varchar(2) DEFAULT 'ab'::text, a8 text DEFAULT 5, a9 char(3) DEFAULT 'abcd'::varchar(2), b1 varchar(5) DEFAULT 12345,
  b2 text DEFAULT substring('hello' from 2), b3 text DEFAULT 'a' COLLATE "C", b4 text DEFAULT true, b5 bpchar DEFAULT 'q ',
  b6 text DEFAULT current_date::text, b7 text DEFAULT NULLIF('a','b'), b8 text NOT NULL DEFAULT f(), b9 varchar(4) DEFAULT left('abcdef', 2),
  c1 text DEFAULT '''', c2 text DEFAULT '''''', c3 text DEFAULT current_database(), c4 text DEFAULT current_schema,
  c5 varchar(10) DEFAULT ('x'||'y')::varchar(10), c6 varchar(10) DEFAULT lower('X'), c7 varchar(10) DEFAULT upper('it''s'||'y'));
CREATE TABLE d_time(id int PRIMARY KEY, a time DEFAULT '24:00', b time DEFAULT '12:34:56.789', c time DEFAULT now(),
  d time DEFAULT localtime, e time DEFAULT current_time, f time(3) DEFAULT '1:2:3.4567', g time DEFAULT '00:00',
  h time DEFAULT '23:59:59.999999', i timetz DEFAULT '1:2:3+02', j timetz DEFAULT now(), k time(0) DEFAULT '24:00',
  l time DEFAULT '1:00'::time + interval '1 h', m date DEFAULT 'infinity', n date DEFAULT '-infinity', o date DEFAULT current_date,
  p date DEFAULT now(), q date DEFAULT '2020-02-29', r date DEFAULT '0044-03-15 BC', s date DEFAULT '10000-01-01',
  t date DEFAULT current_date + 7, u date DEFAULT make_date(2020,1,1), v date DEFAULT '1500-01-01', w date DEFAULT 'epoch',
  x date DEFAULT '2020-01-01'::date + 1, z date DEFAULT '2020-01-01'::timestamp);
CREATE TABLE d_ts(id int PRIMARY KEY, a timestamp DEFAULT '2020-01-01', b timestamp DEFAULT 'infinity', c timestamp DEFAULT '-infinity',
  d timestamp DEFAULT now(), e timestamp DEFAULT localtimestamp, f timestamp DEFAULT current_timestamp,
  g timestamp(3) DEFAULT '2020-01-01 1:2:3.4567', h timestamp DEFAULT '0044-03-15 BC', i timestamp DEFAULT '10000-01-01',
  j timestamp DEFAULT '2020-01-01 24:00', k timestamp DEFAULT timezone('utc', now()), l timestamp DEFAULT (now() at time zone 'utc'),
  m timestamp DEFAULT '1500-01-01', n timestamp DEFAULT '2020-01-01 01:02:03.456789', o timestamptz DEFAULT '2020-01-01',
  p timestamptz DEFAULT 'infinity', q timestamptz DEFAULT '-infinity', r timestamptz DEFAULT now(), s timestamptz DEFAULT current_timestamp,
  t timestamptz DEFAULT clock_timestamp(), u timestamptz DEFAULT now() + interval '1 day',
  v timestamptz DEFAULT '2020-06-01 12:00:00.5+05:30', w timestamptz(3) DEFAULT '2020-06-01 12:00:00.123456+00',
  x timestamptz DEFAULT '0044-03-15 BC', y timestamptz DEFAULT '10000-01-01', z timestamptz DEFAULT '2020-01-01'::date,
  a1 timestamp(0) DEFAULT now(), a2 timestamptz(0) DEFAULT current_timestamp(0),
  a3 timestamp DEFAULT '2020-01-01'::timestamp + interval '1 day', a4 timestamp(6) DEFAULT current_timestamp(3),
  a5 timestamp DEFAULT localtimestamp(2), a6 timestamptz DEFAULT to_timestamp(0), a7 timestamptz DEFAULT statement_timestamp(),
  a8 timestamp DEFAULT '294276-12-31 23:59:59', a9 timestamptz DEFAULT '1600-01-01', b1 timestamptz DEFAULT '1969-12-31 23:59:59.999999+00',
  b2 timestamptz NOT NULL DEFAULT now(), b3 timestamp NOT NULL DEFAULT 'epoch', b4 timestamp DEFAULT '1677-01-01',
  b5 timestamp DEFAULT '2300-01-01');
CREATE TABLE d_misc(id int PRIMARY KEY, a uuid DEFAULT gen_random_uuid(), b uuid DEFAULT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
  c uuid DEFAULT md5('x')::uuid, d json DEFAULT '{"a": "it''s"}', e jsonb DEFAULT '{"a":1}', f jsonb DEFAULT '[]',
  g json DEFAULT json_build_object('a',1), h jsonb DEFAULT jsonb_build_array(), i jsonb DEFAULT 'null', j xml DEFAULT '<a/>',
  k interval DEFAULT '1 day', l interval DEFAULT '1 year 2 mons -3 days 04:05:06.5', m interval DEFAULT now()-now(),
  n interval DEFAULT make_interval(days => 3), o interval DEFAULT '-1 s', p interval DEFAULT '0', q interval(3) DEFAULT '1.23456 s',
  r interval DEFAULT interval '1 day' * 2, s bit(3) DEFAULT B'101', t bit(1) DEFAULT B'1', u varbit DEFAULT B'101',
  v varbit(5) DEFAULT B'00101', w bit(3) DEFAULT 5::bit(3), x bit(8) DEFAULT X'0F', y mood DEFAULT 'sad', z mood DEFAULT 'it''s',
  a1 mood DEFAULT 'a b', a4 "Weird" DEFAULT 'Y', a5 mood DEFAULT enum_first(NULL::mood), a6 mood DEFAULT NULL,
  a7 mood DEFAULT ('o'||'k')::mood, a8 text[] DEFAULT '{a,b}', a9 int[] DEFAULT ARRAY[1,2], b1 bytea DEFAULT '\x00ff',
  b2 bytea DEFAULT decode('00','hex'), b3 inet DEFAULT '1.2.3.4', b4 cidr DEFAULT '10.0.0.0/8', b5 macaddr DEFAULT '08:00:2b:01:02:03',
  b6 point DEFAULT '(1,2)', b7 int4range DEFAULT '[1,5)', b8 hstore DEFAULT 'a=>1', b9 tsvector DEFAULT 'a b', c1 mood[] DEFAULT '{sad}',
  c2 uuid DEFAULT 'A0EEBC999C0B4EF8BB6D6BB9BD380A11', c3 interval DEFAULT 'P1Y2M3DT4H5M6S', c4 interval DEFAULT '100:00:00',
  c5 interval DEFAULT '178956970 years', c6 bit DEFAULT '0', c7 varbit(1) DEFAULT B'1', c8 bit(3) DEFAULT '101', c9 varbit DEFAULT '',
  d1 varbit(8) DEFAULT '1'||'0'::varbit, d2 xml DEFAULT xmlparse(content 'x'), d3 json DEFAULT '{}'::jsonb::json,
  d4 mood NOT NULL DEFAULT 'ok', d5 interval DEFAULT '1 mon 1 day 1 us', d6 interval DEFAULT '-1 year -2 days +03:00:00');
CREATE TABLE d_gen(id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED,
  h text GENERATED ALWAYS AS ('x' || lower(a::text)) STORED, i uuid GENERATED ALWAYS AS (md5('x')::uuid) STORED,
  j int GENERATED ALWAYS AS IDENTITY, k int GENERATED BY DEFAULT AS IDENTITY, l bool GENERATED ALWAYS AS (a > 2) STORED,
  m int GENERATED ALWAYS AS (abs(a)) STORED, n text GENERATED ALWAYS AS (md5('x')) STORED);
INSERT INTO d_int SELECT (jsonb_populate_record(NULL::d_int, '{"id":1,"w":1}')).*;
INSERT INTO d_big SELECT (jsonb_populate_record(NULL::d_big, '{"id":1,"i":1,"j":1,"a4":true}')).*;
INSERT INTO d_num SELECT (jsonb_populate_record(NULL::d_num, '{"id":1}')).*;
INSERT INTO d_text SELECT (jsonb_populate_record(NULL::d_text, '{"id":1,"b8":"q"}')).*;
INSERT INTO d_time SELECT (jsonb_populate_record(NULL::d_time, '{"id":1}')).*;
INSERT INTO d_ts SELECT (jsonb_populate_record(NULL::d_ts, '{"id":1,"b2":"2020-01-01","b3":"2020-01-01"}')).*;
INSERT INTO d_misc SELECT (jsonb_populate_record(NULL::d_misc, '{"id":1,"d4":"ok"}')).*;
INSERT INTO d_gen(id) VALUES (1);

CREATE FUNCTION f() RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'v'::text$$;
CREATE TABLE iv(id int PRIMARY KEY, a interval, b interval NOT NULL DEFAULT '1.235 s', c interval(2), d interval[]);
INSERT INTO iv SELECT n, v::interval, v::interval, v::interval FROM unnest(ARRAY['1.235 s','1 year 2 mons -3 days 04:05:06.789','-00:00:00.5','178000000 years 11 mons 1.000001 s','-178000000 years','100000:00:00.000001','-1 day +00:00:00.1','2.675 s','59.999999 s','0.1 s','0.000001 s','-0.3 s','300 years 0.123457 s','1 mon','-1 mon','1000000 days 0.7 s','23:59:59.999999','-23:59:59.999999','596523:14:07.5','-5 mons 7 days','0']) WITH ORDINALITY u(v,n);
CREATE TABLE vb(id int PRIMARY KEY, a varbit(1), b varbit(2), c varbit, d bit(1), e bit(2), f varbit(1) NOT NULL, g varbit(9), h varbit(64),
  i varbit(1)[]);
INSERT INTO vb VALUES (1,B'1',B'1',B'1',B'1',B'10',B'1',B'1',B'1'),(2,B'0',B'0',B'0',B'0',B'00',B'0',B'000000001',B'0'),(4,NULL,NULL,NULL,NULL,NULL,B'1',NULL,NULL);
CREATE TABLE nn(id int PRIMARY KEY, a numeric NOT NULL DEFAULT 7, b timestamptz NOT NULL DEFAULT 'infinity',
  c date NOT NULL DEFAULT 'infinity', d time NOT NULL DEFAULT '24:00', e timestamp NOT NULL DEFAULT '-infinity',
  f uuid NOT NULL DEFAULT gen_random_uuid(), g text NOT NULL DEFAULT 'x'||'y', h int NOT NULL DEFAULT 1+1, i bool NOT NULL DEFAULT 1=1,
  j jsonb NOT NULL DEFAULT '{}'::jsonb||'{"a":1}'::jsonb, k bit(3) NOT NULL DEFAULT B'101', l varbit NOT NULL DEFAULT B'1',
  m interval NOT NULL DEFAULT '1.235 s', n numeric(6,2) NOT NULL DEFAULT 1.555, o float8 NOT NULL DEFAULT random(),
  p timestamp(3) NOT NULL DEFAULT 'infinity', q timestamp(3) NOT NULL DEFAULT '2020-01-01 00:00:00.9999', r bytea NOT NULL DEFAULT '\x00',
  s inet NOT NULL DEFAULT '1.2.3.4', t text[] NOT NULL DEFAULT '{a}', u bit(1) NOT NULL DEFAULT B'1', v money NOT NULL DEFAULT 1,
  w xml NOT NULL DEFAULT '<a/>', x bigint NOT NULL DEFAULT 5::bigint*2, y "char" NOT NULL DEFAULT 'c', z oid NOT NULL DEFAULT 5);
INSERT INTO nn(id,f,o) VALUES (1,'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',0.5),(2,'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12',0.25);
CREATE TABLE nul(id int PRIMARY KEY, f uuid DEFAULT gen_random_uuid(), g text DEFAULT 'x'||'y', h text DEFAULT CURRENT_USER,
  i bool DEFAULT 1=1, j jsonb DEFAULT jsonb_build_array(), k bit(3) DEFAULT 5::bit(3), l varbit DEFAULT B'1', m interval DEFAULT '1.235 s',
  n numeric(6,2) DEFAULT 1.55, o float8 DEFAULT random(), p time DEFAULT '24:00', q date DEFAULT '-infinity', r text DEFAULT f() ); 
INSERT INTO nul VALUES (2,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);

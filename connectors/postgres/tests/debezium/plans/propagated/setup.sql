CREATE EXTENSION ltree; CREATE EXTENSION citext; CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('sad','ok'); CREATE TYPE comp AS (a int, b text);
CREATE DOMAIN dn AS numeric; CREATE DOMAIN dn2 AS numeric(6,-2); CREATE DOMAIN dn3 AS numeric(8,2); CREATE DOMAIN dd AS dn3;
CREATE TABLE t1(id serial PRIMARY KEY, a numeric(6,-2), b numeric, c numeric(2,5), d numeric(10), e numeric(6,-2)[], f numeric[], g dn, h dn2, i dn3, j dd,
  k money, l "char", m name, n ltree, o citext, p hstore, q mood, r mood[], s bit, t bit(7), u bit varying, v bit varying(9), w bit(3)[], x interval(3), y interval day to second, z xml,
  aa uuid, ab inet, ac cidr, ad macaddr, ae macaddr8, af int4range, ag tstzrange, ah tsvector, ai oid, aj timestamptz(1), ak timetz(2), al time(0), am timestamp(6), an date,
  ao char(4)[], ap varchar(9)[], aq point, ar json, as_ jsonb, at bytea, au float4, av float8[], aw smallint, ax bigint[], ay bool, az char, ba varchar, bb int8range, bc daterange, bd numrange, be tsrange, bf bigserial, bg smallserial);
INSERT INTO t1(a,b) VALUES (12345,1.5),(NULL,NULL);

//! Random tables, values, statements and options: what one seed asks both connectors.

use catchwater_base::rng::Rng;
use std::collections::BTreeMap;

/// A type, its literals (extremes among them) and whether arrays of it are tried.
struct Kind {
    name: &'static str,
    sql: &'static str,
    values: &'static [&'static str],
    arrays: bool,
    /// May be part of a key: equal values have one form.
    keys: bool,
}

const fn kind(
    name: &'static str,
    sql: &'static str,
    arrays: bool,
    keys: bool,
    values: &'static [&'static str],
) -> Kind {
    Kind { name, sql, values, arrays, keys }
}

/// Literals stand between quotes.
const KINDS: &[Kind] = &[
    kind("i2", "smallint", true, true, &["-32768", "32767", "0"]),
    kind("i4", "integer", true, true, &["-2147483648", "2147483647", "0", "7"]),
    kind("i8", "bigint", true, true, &["-9223372036854775808", "9223372036854775807", "0"]),
    kind("f4", "real", true, false, &["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "1.1"]),
    kind(
        "f8",
        "double precision",
        true,
        false,
        &["NaN", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "1e22", "0.1"],
    ),
    kind(
        "nv",
        "numeric",
        true,
        false,
        &["NaN", "Infinity", "-Infinity", "1e-30", "-12345678901234567890.12300", "0", "100"],
    ),
    kind("nf", "numeric(12,3)", true, true, &["0", "-999999999.999", "0.001", "1.5"]),
    kind("nn", "numeric(6,2)", true, false, &["NaN", "-9999.99", "0"]),
    kind("nw", "numeric(6,-2)", false, false, &["12345", "-99999900", "0", "49"]),
    kind("ns", "numeric(2,5)", true, false, &["0.00012", "-0.00099"]),
    kind("mo", "money", false, false, &["-92233720368547758.08", "0.01", "12.34"]),
    kind("bo", "boolean", true, true, &["t", "f"]),
    kind("tx", "text", true, true, &["", "a", "q\"\\ ü😀", "tab\tnl\nend", "NULL", "{}", "\u{1}\u{7f}"]),
    kind("vc", "varchar(20)", true, true, &["", "abc", " x "]),
    kind("ch", "char(4)", true, false, &["", "ab"]),
    kind("oc", "\"char\"", true, false, &["a", ""]),
    kind("nm", "name", false, false, &["a_name", "x"]),
    kind("ci", "citext", true, false, &["CiText", ""]),
    kind("by", "bytea", true, true, &["\\x", "\\x00ff10", "\\xdeadbeef"]),
    kind("b1", "bit(1)", true, false, &["0", "1"]),
    kind("b9", "bit(9)", true, false, &["000000001", "100000000", "101010101"]),
    kind("vb", "bit varying(12)", false, false, &["", "101", "00000001"]),
    kind(
        "da",
        "date",
        true,
        false,
        &[
            "infinity",
            "-infinity",
            "1582-10-10",
            "1582-10-15",
            "0044-03-15 BC",
            "4713-01-01 BC",
            "5874897-12-31",
            "1970-01-01",
            "2026-11-21",
            "1000-02-28",
        ],
    ),
    kind("ti", "time", true, false, &["00:00", "24:00", "23:59:59.999999", "12:34:56.789012", "00:00:00.000999"]),
    kind("t3", "time(3)", true, false, &["24:00", "12:34:56.789"]),
    kind("tz", "timetz", true, false, &["00:00+00", "24:00:00-03", "08:00:00.5+15:59", "12:34:56.789012+05:45"]),
    kind("ts", "timestamp", true, true, &["2026-11-21 12:34:56.789012", "1969-12-31 23:59:59.999999", "2000-01-01"]),
    kind(
        "tf",
        "timestamp",
        true,
        false,
        &[
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00.5 BC",
            "1582-10-10 01:02:03.123456",
            "294276-12-31 23:59:59.999999",
            "294247-01-11",
            "9999-12-31 23:59:59",
            "4713-11-24 BC",
            "1677-09-21 00:12:43.145224",
        ],
    ),
    kind(
        "s3",
        "timestamp(3)",
        true,
        false,
        &["infinity", "-infinity", "294276-12-31 23:59:59.999", "1582-10-14", "2026-11-21 12:34:56.789"],
    ),
    kind("tt", "timestamptz", true, true, &["2026-11-21 12:34:56.789012+05:45", "1970-01-01 00:00+00"]),
    kind(
        "tg",
        "timestamptz",
        true,
        false,
        &[
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00.5+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "1582-10-10 00:00+00",
            "4713-11-24 00:00+00 BC",
        ],
    ),
    kind(
        "iv",
        "interval",
        false,
        false,
        &["1 year 2 mons -3 days -04:05:06.789012", "0", "178000000 years", "-00:00:00.000001", "1 mon"],
    ),
    kind("js", "json", true, false, &["null", "{\"a\": [1, 2.50],  \"b\":\"ü\"}"]),
    kind("jb", "jsonb", true, false, &["[]", "{\"a\": 1e2, \"b\": \"\\\"\"}"]),
    kind("xm", "xml", false, false, &["<a b=\"c\">d</a>", ""]),
    kind("uu", "uuid", true, true, &["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    kind("en", "mood", true, true, &["sad", "very happy"]),
    kind("ip", "inet", true, false, &["10.0.0.1", "::1/64", "1.2.3.4/8"]),
    kind("cr", "cidr", true, false, &["10.1.0.0/16", "::/0"]),
    kind("ma", "macaddr", true, false, &["08:00:2b:01:02:03"]),
    kind("m8", "macaddr8", true, false, &["08:00:2b:01:02:03:04:05"]),
    kind("r4", "int4range", true, false, &["[1,10)", "empty", "(,5]"]),
    kind("rn", "numrange", true, false, &["(1.5,2.5]", "(,)"]),
    kind("rz", "tstzrange", true, false, &["[2026-01-01 00:00+00,infinity)", "empty"]),
    kind("po", "point", false, false, &["(1.5,-2)", "(1e300,-0)"]),
    kind("ln", "line", false, false, &["{1,2,3}"]),
    kind("ls", "lseg", true, false, &["[(0,0),(1,1)]"]),
    kind("bx", "box", false, false, &["(3,4),(1,2)", "(1,2),(3,4)"]),
    kind("pt", "path", true, false, &["((0,0),(1,1))", "[(0,0),(1,1),(2,0)]"]),
    kind("pg", "polygon", true, false, &["((0,0),(1,1),(1,0))"]),
    kind("cc", "circle", true, false, &["<(1,2),3>"]),
    kind("hs", "hstore", true, false, &["", "a=>1, \"b c\"=>NULL", "x=>\"\\\"q\\\\\""]),
    kind("lt", "ltree", true, false, &["Top.Science", ""]),
    kind("tv", "tsvector", true, false, &["'a':1 'fat':2A", ""]),
    kind("oi", "oid", true, true, &["0", "4294967295"]),
    kind("o2", "int2vector", false, false, &["1 2 3", ""]),
    kind("ov", "oidvector", false, false, &["1 2", ""]),
    kind("dt", "dom_text", false, false, &["d", ""]),
    kind("dn", "dom_num", false, false, &["1.5", "0"]),
    kind("dd", "dom_date", false, false, &["infinity", "1582-10-10", "2020-02-29"]),
    kind("di", "dom_ints", false, false, &["{1,NULL}", "{{1,2}}", "{}"]),
    kind("ul", "pg_lsn", false, false, &["1/2"]),
    kind("ut", "tsquery", false, false, &["'a' & 'b'"]),
    kind("up", "jsonpath", false, false, &["$.\"a\""]),
    kind("ux", "xid", false, false, &["7"]),
    kind("ur", "int4multirange", false, false, &["{[1,2),[5,9)}", "{}"]),
    kind("uc", "comp", false, false, &["(1,\"a b\")"]),
];

/// Of seeds from [`WIDE`] on, beside the others: rare types, and types with odd names.
const WIDE_KINDS: &[Kind] = &[
    kind("u8", "int8multirange", true, false, &["{[1,2),[5,9223372036854775806)}", "{}"]),
    kind("un", "nummultirange", false, false, &["{[1.50,2.25),(7,)}", "{(,)}"]),
    kind("uz", "tstzmultirange", false, false, &["{[2026-01-01 00:00+00,infinity)}"]),
    kind("ud", "datemultirange", true, false, &["{[2026-01-01,2026-02-01)}", "{}"]),
    kind("rd", "daterange", true, false, &["[2026-01-01,2026-02-01)", "empty", "(,infinity)"]),
    kind("rs", "tsrange", true, false, &["[2026-01-01 00:00,2026-02-01 12:00:00.5]", "empty"]),
    kind("r8", "int8range", true, false, &["[1,9223372036854775806]", "empty"]),
    kind("ma", "money", true, false, &["-0.01", "12.34", "1000000"]),
    kind("va", "bit varying(12)", true, false, &["", "101", "000000001"]),
    kind("ia", "interval", true, false, &["1 mon", "-00:00:01.5"]),
    kind("xa", "xml", true, false, &["<a/>", "x"]),
    kind("na", "name", true, false, &["a_name", "b c"]),
    kind("pa", "point", true, false, &["(1,2)"]),
    kind("la", "line", true, false, &["{1,2,3}"]),
    kind("da", "dom_text", true, false, &["d", ""]),
    kind("db", "dom_num", true, false, &["1.5", "0"]),
    kind("dc", "dom_dom", true, false, &["e", ""]),
    kind("de", "dom_list", false, false, &["{a,NULL}", "{}", "{{a},{b}}"]),
    kind("df", "dom_mood", true, false, &["ok", "sad"]),
    kind("eo", "\"Odd \u{e9}n\u{fc}\"", true, true, &["\u{1f600}", "a'b", "a,b", "\"q\"", "{}"]),
    kind("ep", "\"en.um\"", true, true, &["x", "y.z"]),
    kind("cn", "comp_in", true, false, &["(\"(1,a)\",\"{ok,sad}\")", "(,)"]),
    kind("ca", "comp", true, false, &["(1,\"a b\")", "(,)"]),
    kind("ha", "hstore", true, false, &["a=>1", ""]),
    kind("ja", "jsonpath", true, false, &["$.a"]),
    kind("pl", "pg_lsn", true, false, &["1/2"]),
    kind("x8", "xid8", true, false, &["18446744073709551615"]),
    kind("rg", "regclass", true, false, &["pg_class"]),
    kind("vl", "varchar", true, true, &["", "long \u{1f600} text"]),
    kind("bn", "bit(17)", true, false, &["00000000000000001", "10000000000000000"]),
    kind("tp", "timestamptz(2)", true, false, &["2026-11-21 12:34:56.78+05:45", "infinity"]),
    kind("tq", "timestamp(0)", true, false, &["2026-11-21 12:34:56", "-infinity"]),
    kind("tr", "timetz(1)", true, false, &["12:34:56.7+05", "24:00-01"]),
    kind("iq", "interval day to second(2)", false, false, &["1 02:03:04.56", "-1 day"]),
    kind("nz", "numeric(38,0)", true, true, &["99999999999999999999999999999999999999", "0", "-1"]),
    kind("nq", "numeric(40,20)", true, false, &["-12345678901234567890.12345678901234567890", "0"]),
];
/// Names of columns and tables that want quotes.
const ODD_NAMES: &[&str] = &[
    "select",
    "a.b",
    "Cam\u{e9}l",
    "q\"q",
    "\u{1f600}",
    "a very long name that has as many as sixty-three characters, 12",
    "__deleted",
    "1st",
    "$x",
    " lead",
    "tab\tin",
    "comma,colon:",
];
/// The first seed of wide plans.
const WIDE: u64 = 1000;
const WIDE_TYPES: &str = "CREATE DOMAIN dom_dom AS dom_text; CREATE DOMAIN dom_list AS text[]; CREATE DOMAIN dom_mood AS mood; \
    CREATE TYPE \"Odd \u{e9}n\u{fc}\" AS ENUM ('\u{1f600}', 'a''b', 'a,b', '\"q\"', '{}'); CREATE TYPE \"en.um\" AS ENUM ('x', 'y.z'); \
    CREATE TYPE comp_in AS (c comp, d mood[]);\n";

const TYPES: &str = "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree; \
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy'); CREATE TYPE comp AS (a int, b text); \
    CREATE DOMAIN dom_text AS text; CREATE DOMAIN dom_num AS numeric(8,2); CREATE DOMAIN dom_date AS date; \
    CREATE DOMAIN dom_ints AS int[];\n";

struct Column {
    name: String,
    kind: &'static Kind,
    array: bool,
    required: bool,
    big: bool,
}

struct Table {
    name: String,
    columns: Vec<Column>,
    keyed: bool,
    key: Vec<String>,
}

/// What both connectors are asked.
pub struct Plan {
    pub setup: String,
    /// Sent one after another, each a transaction or several.
    pub changes: Vec<String>,
    pub properties: BTreeMap<String, String>,
}

struct Dice(Rng, bool);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0.below(n as u64) as usize
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// As an identifier.
fn name_of(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn array(dice: &mut Dice, kind: &Kind) -> String {
    let item = |dice: &mut Dice| {
        let text = dice.pick::<&str>(kind.values).replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{text}\"")
    };
    let count = dice.below(4);
    let items: Vec<String> = (0..count).map(|_| if dice.one_in(6) { "NULL".to_owned() } else { item(dice) }).collect();
    match dice.below(10) {
        0 if count > 0 => format!("[2:{}]={{{}}}", count + 1, items.join(",")),
        1 if count > 0 => format!("{{{{{}}},{{{}}}}}", items.join(","), items.join(",")),
        2 if count > 0 => format!("{{{{{{{}}}}}}}", items.join(",")),
        _ => format!("{{{}}}", items.join(",")),
    }
}

fn value(dice: &mut Dice, column: &Column) -> String {
    if !column.required && dice.one_in(5) {
        return "NULL".into();
    }
    if column.big && dice.one_in(2) {
        // Above a page's share, and not to be compressed: TOAST.
        return format!("repeat({}, 3000)", quoted(&format!("{}ü", dice.below(10))));
    }
    match column.array {
        true => quoted(&array(dice, column.kind)),
        false => quoted(dice.pick::<&str>(column.kind.values)),
    }
}

fn table(dice: &mut Dice, number: usize, setup: &mut String) -> Table {
    let mut name = if dice.one_in(6) { format!("Odd Tä-{number}") } else { format!("t{number}") };
    if dice.1 && dice.one_in(4) {
        name = format!(
            "{}{number}",
            dice.pick(&["Tab", "t-", "Ünï", "a very long name of a table with sixty-two characters, or so ", "t$"])
        );
    }
    let mut columns = Vec::new();
    for i in 0..4 + dice.below(14) {
        let kind = if dice.1 && dice.one_in(2) { dice.pick(WIDE_KINDS) } else { dice.pick(KINDS) };
        let array = kind.arrays && dice.one_in(3);
        // What is null in Debezium's records would stop it in a required field.
        let required = kind.keys && !array && dice.one_in(4);
        let big = matches!(kind.name, "tx") && !array && dice.one_in(2);
        let suffix = if array { "a" } else { "" };
        let mut name = format!("{}{suffix}_{i}", kind.name);
        if dice.1 && dice.one_in(6) {
            let odd = *dice.pick(ODD_NAMES);
            if columns.iter().all(|c: &Column| c.name != odd) {
                name = odd.to_owned();
            }
        }
        columns.push(Column { name, kind, array, required, big });
    }
    let mut key = vec!["id".to_owned()];
    key.extend(columns.iter().filter(|c| c.required && !c.big && dice.one_in(3)).map(|c| c.name.clone()));
    let keyed = !dice.one_in(6);
    let mut parts = vec!["id int NOT NULL".to_owned()];
    for c in &columns {
        let sql = if c.array { format!("{}[]", c.kind.sql) } else { c.kind.sql.to_owned() };
        let required = if c.required { " NOT NULL" } else { "" };
        let plain = matches!(c.kind.name, "i4" | "i8" | "tx" | "vc" | "nf" | "bo" | "uu" | "ts" | "tt" | "en" | "jb");
        let default = match plain && !c.array && dice.one_in(4) {
            true => format!(" DEFAULT {}", quoted(c.kind.values[c.kind.values.len() - 1])),
            false => String::new(),
        };
        parts.push(format!("{} {sql}{required}{default}", name_of(&c.name)));
    }
    if keyed {
        let names: Vec<String> = key.iter().map(|k| name_of(k)).collect();
        parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
    }
    setup.push_str(&format!("CREATE TABLE \"{name}\"({});\n", parts.join(", ")));
    for c in columns.iter().filter(|c| c.big) {
        setup.push_str(&format!("ALTER TABLE \"{name}\" ALTER {} SET STORAGE EXTERNAL;\n", name_of(&c.name)));
    }
    match dice.below(8) {
        _ if !keyed => setup.push_str(&format!("ALTER TABLE \"{name}\" REPLICA IDENTITY FULL;\n")),
        0..=2 => setup.push_str(&format!("ALTER TABLE \"{name}\" REPLICA IDENTITY FULL;\n")),
        3 => setup.push_str(&format!(
            "ALTER TABLE \"{name}\" ADD uq int NOT NULL DEFAULT nextval('uq'); CREATE UNIQUE INDEX ON \"{name}\"(uq); \
             ALTER TABLE \"{name}\" REPLICA IDENTITY USING INDEX \"{name}_uq_idx\";\n"
        )),
        _ => {}
    }
    Table { name, columns, keyed, key }
}

fn insert(dice: &mut Dice, table: &Table, id: usize) -> String {
    // Columns left out have their defaults.
    let some: Vec<&Column> = table.columns.iter().filter(|c| c.required || !dice.one_in(8)).collect();
    let names: Vec<String> = std::iter::once("id".to_owned()).chain(some.iter().map(|c| name_of(&c.name))).collect();
    let values: Vec<String> = std::iter::once(id.to_string()).chain(some.iter().map(|c| value(dice, c))).collect();
    format!("INSERT INTO \"{}\"({}) VALUES ({})", table.name, names.join(", "), values.join(", "))
}

fn change(dice: &mut Dice, table: &Table, next: &mut usize) -> String {
    let id = 1 + dice.below(*next);
    match dice.below(12) {
        0..=3 => {
            *next += 1;
            insert(dice, table, *next)
        }
        4..=7 => {
            let free: Vec<&Column> = table.columns.iter().filter(|c| !table.key.contains(&c.name)).collect();
            if free.is_empty() {
                return format!("DELETE FROM \"{}\" WHERE id = {id}", table.name);
            }
            let c = free[dice.below(free.len())];
            format!("UPDATE \"{}\" SET {} = {} WHERE id = {id}", table.name, name_of(&c.name), value(dice, c))
        }
        8 => {
            *next += 1;
            format!("UPDATE \"{}\" SET id = {} WHERE id = {id}", table.name, *next)
        }
        9 => format!("UPDATE \"{}\" SET id = id WHERE id = {id}", table.name),
        10 if table.keyed || dice.one_in(2) => format!("DELETE FROM \"{}\" WHERE id = {id}", table.name),
        _ if dice.one_in(4) => format!("TRUNCATE \"{}\"", table.name),
        _ => {
            let transactional = dice.one_in(2);
            format!("SELECT pg_logical_emit_message({transactional}, 'p{}', {})", dice.below(3), quoted("text\u{1}"))
        }
    }
}

fn options(dice: &mut Dice, tables: &[Table]) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let words: &[(&str, &[&str])] = &[
        ("decimal.handling.mode", &["precise", "double", "string"]),
        (
            "time.precision.mode",
            &["adaptive", "adaptive_time_microseconds", "connect", "isostring", "microseconds", "nanoseconds"],
        ),
        ("binary.handling.mode", &["bytes", "base64", "base64-url-safe", "hex"]),
        ("hstore.handling.mode", &["json", "map"]),
        ("interval.handling.mode", &["numeric", "string"]),
        ("money.fraction.digits", &["0", "2", "4"]),
        ("tombstones.on.delete", &["true", "true", "false"]),
        ("extended.headers.enabled", &["true", "false"]),
        ("provide.transaction.metadata", &["true", "false", "false"]),
        ("include.unknown.datatypes", &["true", "false"]),
        ("unavailable.value.placeholder", &["__debezium_unavailable_value", "hex:00ff", "x\"y"]),
        ("skipped.operations", &["t", "t", "none", "t,d", "t,c", "t,u", "c,d"]),
        ("skip.messages.without.change", &["false", "false", "true"]),
        ("value.converter.replace.null.with.default", &["true", "true", "false"]),
        ("key.converter.replace.null.with.default", &["true", "false"]),
        ("topic.delimiter", &[".", ".", "-"]),
    ];
    for (name, of) in words {
        if !dice.one_in(3) {
            out.insert((*name).to_owned(), (*dice.pick(of)).to_owned());
        }
    }
    let columns: Vec<String> = tables
        .iter()
        .filter(|t| !t.name.contains(' '))
        .flat_map(|t| {
            t.columns.iter().filter(|c| !t.key.contains(&c.name)).map(|c| format!("public.{}.{}", t.name, c.name))
        })
        .collect();
    for name in [
        "column.exclude.list",
        "column.mask.with.5.chars",
        "column.truncate.to.3.chars",
        "column.mask.hash.SHA-256.with.salt.CzQMA0cB5K",
    ] {
        if dice.one_in(4) && !columns.is_empty() {
            out.insert(name.to_owned(), dice.pick(&columns).replace('.', "[.]"));
        }
    }
    if dice.1 {
        wide_options(dice, tables, &mut out);
    }
    out
}

fn wide_options(dice: &mut Dice, tables: &[Table], out: &mut BTreeMap<String, String>) {
    let words: &[(&str, &[&str])] = &[
        ("time.precision.mode", &["structured", "isostring", "adaptive"]),
        ("schema.name.adjustment.mode", &["avro", "avro_unicode", "none"]),
        ("column.propagate.source.type", &[".*", "public[.]t0[.].*"]),
        ("datatype.propagate.source.type", &[".*[.]_?int4", "public[.]mood,.*[.]varchar"]),
        ("provide.transaction.metadata", &["true"]),
    ];
    for (name, of) in words {
        if dice.one_in(4) {
            out.insert((*name).to_owned(), (*dice.pick(of)).to_owned());
        }
    }
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let plain = || tables.iter().filter(|t| is_plain(&t.name));
    let columns: Vec<String> = plain()
        .flat_map(|t| {
            let free = t.columns.iter().filter(|c| !t.key.contains(&c.name) && is_plain(&c.name));
            free.map(|c| format!("public[.]{}[.]{}", t.name, c.name))
        })
        .collect();
    for name in [
        "column.mask.with.0.chars",
        "column.truncate.to.1.chars",
        "column.truncate.to.9.chars",
        "column.mask.hash.v2.SHA-512.with.salt.x",
    ] {
        if dice.one_in(5) && !columns.is_empty() {
            let (a, b) = (dice.pick(&columns).clone(), dice.pick(&columns).clone());
            out.insert(name.to_owned(), format!("{a},{b}"));
        }
    }
    // A key of other columns: all of the row before is sent.
    let keyed: Vec<&Table> = plain().filter(|t| !t.keyed).collect();
    if let Some(t) = keyed.first().filter(|_| dice.one_in(2)) {
        out.insert("message.key.columns".to_owned(), format!("public.{}:id", t.name));
    }
}

pub fn plan(seed: u64) -> Plan {
    let dice = &mut Dice(Rng::new(seed), seed >= WIDE);
    let mut setup = format!("{TYPES}CREATE SEQUENCE uq;\n");
    if dice.1 {
        setup.push_str(WIDE_TYPES);
    }
    let tables: Vec<Table> = (0..1 + dice.below(3)).map(|i| table(dice, i, &mut setup)).collect();
    let mut next = vec![0; tables.len()];
    for (t, table) in tables.iter().enumerate() {
        for _ in 0..dice.below(5) {
            next[t] += 1;
            setup.push_str(&format!("{};\n", insert(dice, table, next[t])));
        }
    }
    let mut changes = Vec::new();
    for _ in 0..10 + dice.below(20) {
        let mut statements = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let t = dice.below(tables.len());
            statements.push(change(dice, &tables[t], &mut next[t]));
        }
        let undone = dice.one_in(8).then(|| {
            let t = dice.below(tables.len());
            format!("SAVEPOINT s; {}; ROLLBACK TO s; ", change(dice, &tables[t], &mut next[t]))
        });
        let end = if dice.one_in(12) { "ROLLBACK" } else { "COMMIT" };
        changes.push(format!("BEGIN; {}{}; {end}", undone.unwrap_or_default(), statements.join("; ")));
    }
    let properties = options(dice, &tables);
    Plan { setup, changes, properties }
}

//! Pure. The connector classes that are known, and their properties. Names, types, defaults and groups are facts of the
//! plugins: what `GET /connector-plugins/CLASS/config` of Kafka Connect 4.3.1 answers for Debezium's PostgreSQL connector
//! 3.7.0 and JDBC sink 3.6.0, and Confluent's documentation of its JDBC sink. What we do with each is ours.

use std::sync::OnceLock;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    DebeziumPostgres,
    DebeziumJdbc,
    ConfluentJdbc,
    AivenJdbc,
}

/// What becomes of a property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It means what it means in Debezium.
    Honoured,
    /// It becomes something of the pipeline.
    Translated,
    /// It has no effect here.
    Ignored,
    /// Another value than the default is refused.
    DefaultOnly,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    pub name: &'static str,
    /// `STRING`, `PASSWORD`, `INT`, `SHORT`, `LONG`, `BOOLEAN`, `LIST`, `CLASS`
    pub kind: &'static str,
    pub default: Option<&'static str>,
    pub importance: &'static str,
    pub group: &'static str,
    pub verdict: Verdict,
}

impl Definition {
    pub fn is_secret(&self) -> bool {
        self.kind == "PASSWORD"
    }

    /// One sentence for tools that show it.
    pub fn documentation(&self) -> &'static str {
        match self.verdict {
            Verdict::Honoured => "Means what it means in Debezium.",
            Verdict::Translated => "Becomes a part of the pipeline.",
            Verdict::Ignored => "Accepted; has no effect in Catchwater.",
            Verdict::DefaultOnly => "Catchwater knows the default only.",
        }
    }

    pub(super) fn is_default(&self, value: &str) -> bool {
        let default = self.default.unwrap_or_default();
        value == default || self.kind == "BOOLEAN" && value.eq_ignore_ascii_case(default)
    }

    pub(super) fn wrong_type(&self, value: &str) -> Option<String> {
        let (ok, what) = match self.kind {
            "INT" => (value.parse::<i32>().is_ok(), "An integer is expected"),
            "SHORT" => (value.parse::<i16>().is_ok(), "An integer is expected"),
            "LONG" => (value.parse::<i64>().is_ok(), "A long value is expected"),
            "BOOLEAN" => (
                value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
                "Either 'true' or 'false' is expected",
            ),
            _ => (true, ""),
        };
        (!ok).then(|| what.to_owned())
    }
}

impl Class {
    pub const ALL: [Class; 4] = [Class::DebeziumPostgres, Class::DebeziumJdbc, Class::ConfluentJdbc, Class::AivenJdbc];

    pub fn name(self) -> &'static str {
        match self {
            Class::DebeziumPostgres => "io.debezium.connector.postgresql.PostgresConnector",
            Class::DebeziumJdbc => "io.debezium.connector.jdbc.JdbcSinkConnector",
            Class::ConfluentJdbc => "io.confluent.connect.jdbc.JdbcSinkConnector",
            Class::AivenJdbc => "io.aiven.connect.jdbc.JdbcSinkConnector",
        }
    }

    /// By its name, or, as Connect does, by the last word of it with or without `Connector`. Of several that fit, the
    /// first: Debezium's.
    pub fn find(name: &str) -> Option<Class> {
        let simple = |c: &Class| c.name().rsplit('.').next().unwrap_or_default();
        let fits = |c: &&Class| {
            c.name() == name || simple(c) == name || simple(c).strip_suffix("Connector").is_some_and(|s| s == name)
        };
        Class::ALL.iter().find(fits).copied()
    }

    pub fn is_source(self) -> bool {
        self == Class::DebeziumPostgres
    }

    pub fn definitions(self) -> &'static [Definition] {
        static SOURCE: OnceLock<Vec<Definition>> = OnceLock::new();
        static DEBEZIUM: OnceLock<Vec<Definition>> = OnceLock::new();
        static CONFLUENT: OnceLock<Vec<Definition>> = OnceLock::new();
        match self {
            Class::DebeziumPostgres => SOURCE.get_or_init(|| parse(include_str!("source.tsv"))),
            Class::DebeziumJdbc => DEBEZIUM.get_or_init(|| parse(include_str!("sink.tsv"))),
            Class::ConfluentJdbc | Class::AivenJdbc => {
                CONFLUENT.get_or_init(|| parse(include_str!("sink_confluent.tsv")))
            }
        }
    }

    pub fn definition(self, name: &str) -> Option<&'static Definition> {
        self.definitions().iter().find(|d| d.name == name)
    }
}

/// Lines of name, type, default, importance, group, verdict, with tabs between.
fn parse(table: &'static str) -> Vec<Definition> {
    table
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('\t');
            let mut next = || cells.next().unwrap_or_default();
            let (name, kind, default, importance, group) = (next(), next(), next(), next(), next());
            let verdict = match next() {
                "honoured" => Verdict::Honoured,
                "translated" => Verdict::Translated,
                "ignored" => Verdict::Ignored,
                "default-only" => Verdict::DefaultOnly,
                _ => return None,
            };
            let default = (!default.is_empty()).then_some(default);
            Some(Definition { name, kind, default, importance, group, verdict })
        })
        .collect()
}

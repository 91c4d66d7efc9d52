//! Pure. Where the database files are, and the bounds of waiting.

use std::path::PathBuf;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceConfig {
    pub file: PathBuf,
    /// Tables to capture: `orders`, `main.orders`; `*` stands for any text. Empty = all.
    pub tables: Vec<String>,
    /// How long a write of ours waits for another writer.
    pub busy_ms: u32,
    /// The poll's pause: rises from the first to the second while nothing happens.
    pub poll_min_ms: u32,
    pub poll_max_ms: u32,
    /// Rows per chunk of a snapshot.
    pub chunk_rows: u32,
}

impl SourceConfig {
    pub fn new(file: impl Into<PathBuf>) -> Self {
        SourceConfig {
            file: file.into(),
            tables: Vec::new(),
            busy_ms: 5_000,
            poll_min_ms: 1,
            poll_max_ms: 50,
            chunk_rows: 5_000,
        }
    }

    /// Does the capture want this table?
    pub fn takes(&self, table: &str) -> bool {
        self.tables.is_empty()
            || self.tables.iter().any(|t| matches(t.strip_prefix("main.").unwrap_or(t).as_bytes(), table.as_bytes()))
    }

    /// Names without a `*` that must exist.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|t| t.strip_prefix("main.").unwrap_or(t)).filter(|t| !t.contains('*'))
    }
}

/// `*` matches any run of bytes; SQLite's names do not care for ASCII case.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        (Some((p, rest)), Some((t, tail))) if p.eq_ignore_ascii_case(t) => matches(rest, tail),
        _ => false,
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkConfig {
    /// Made when it is missing.
    pub file: PathBuf,
    /// How long a write of ours waits for another writer.
    pub busy_ms: u32,
}

impl SinkConfig {
    pub fn new(file: impl Into<PathBuf>) -> Self {
        SinkConfig { file: file.into(), busy_ms: 5_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_schema_and_stars() {
        let of =
            |t: &[&str]| SourceConfig { tables: t.iter().map(|s| (*s).to_owned()).collect(), ..SourceConfig::new("x") };
        assert!(of(&[]).takes("orders"));
        assert!(of(&["orders"]).takes("Orders"));
        assert!(of(&["main.orders"]).takes("orders"));
        assert!(of(&["main.*"]).takes("orders"));
        assert!(of(&["or*"]).takes("orders"));
        assert!(!of(&["order"]).takes("orders"));
        assert_eq!(of(&["main.a", "b*", "c"]).named().collect::<Vec<_>>(), ["a", "c"]);
    }
}

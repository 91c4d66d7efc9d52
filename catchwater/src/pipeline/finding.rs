//! Pure. What the validator says of a file: code, place, message, suggestions.

use serde::Serialize;

/// A place in a file; lines and columns from 1, the end exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Span {
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
}

impl Span {
    pub const START: Span = Span { line: 1, column: 1, end_line: 1, end_column: 2 };

    pub const fn at(line: usize, column: usize) -> Span {
        Span { line, column, end_line: line, end_column: column + 1 }
    }
    pub fn of(s: saphyr_parser::Span) -> Span {
        Span { line: s.start.line(), column: s.start.col() + 1, end_line: s.end.line(), end_column: s.end.col() + 1 }
    }
    pub fn to(self, end: Span) -> Span {
        Span { end_line: end.end_line, end_column: end.end_column, ..self }
    }
}

/// Codes of the validator; each has a page in `docs/errors/`.
pub mod codes {
    pub const TEXT: &str = "CW0301";
    pub const SYNTAX: &str = "CW0302";
    pub const SHAPE: &str = "CW0303";
    pub const UNKNOWN_FIELD: &str = "CW0311";
    pub const MISSING_FIELD: &str = "CW0312";
    pub const DUPLICATE: &str = "CW0313";
    pub const WRONG_TYPE: &str = "CW0314";
    pub const BAD_VALUE: &str = "CW0315";
    pub const COMPONENT: &str = "CW0316";
    pub const NAME: &str = "CW0317";
    pub const UNKNOWN_FROM: &str = "CW0321";
    pub const UNUSED: &str = "CW0322";
    pub const SAME_TARGET: &str = "CW0323";
    pub const SAME_SYSTEM: &str = "CW0324";
    pub const SECRET: &str = "CW0331";
    pub const REFERENCE: &str = "CW0332";
    /// What a sink stops at, known before it begins.
    pub const SHARED_TOPIC: &str = "CW0697";
    pub const EVENTS: &str = "CW0698";
    pub const TRANSFORMED: &str = "CW0699";
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    pub code: &'static str,
    pub severity: Severity,
    #[serde(flatten)]
    pub span: Span,
    /// Dotted path of the node, e.g. `sinks.copy.postgres.url`.
    pub path: String,
    pub message: String,
    pub suggestions: Vec<String>,
}

impl Finding {
    pub fn error(code: &'static str, span: Span, message: String) -> Self {
        Finding { code, severity: Severity::Error, span, path: String::new(), message, suggestions: Vec::new() }
    }
    pub fn warning(code: &'static str, span: Span, message: String) -> Self {
        Finding { severity: Severity::Warning, ..Self::error(code, span, message) }
    }
    pub fn suggest(mut self, text: impl Into<String>) -> Self {
        self.suggestions.push(text.into());
        self
    }
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The nearest of `allowed` to `word`, if it is near: Damerau–Levenshtein at most max(1, length / 3).
pub fn nearest<'a>(word: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    allowed.into_iter().map(|a| (distance(word, a), a)).filter(|(d, _)| *d <= limit).min().map(|(_, a)| a)
}

/// Damerau–Levenshtein (optimal string alignment) in Unicode scalar values.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let swap = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + swap);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_or_none() {
        assert_eq!(nearest("bach", ["batch", "mode", "from"]), Some("batch"));
        assert_eq!(nearest("form", ["from", "mode"]), Some("from"));
        assert_eq!(nearest("xyzzy", ["from", "mode"]), None);
    }
}

//! Findings for people: the line of the file, the spot, the suggestion. Drawn by `miette`, without colour under
//! NO_COLOR or when standard error is no terminal.

use super::finding::{Finding, Span};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Severity};
use std::io::IsTerminal;

pub fn render(file: &str, text: &str, findings: &[Finding]) -> String {
    let colour = std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal();
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false);
    let mut out = String::new();
    let text = &masked(text);
    for f in findings {
        let (start, end) = (byte_at(text, f.span.line, f.span.column), end_byte(text, f.span));
        let label = f.suggestions.first().cloned().unwrap_or_else(|| "here".to_owned());
        let severity = if f.is_error() { Severity::Error } else { Severity::Warning };
        let mut d = MietteDiagnostic::new(f.message.clone())
            .with_code(f.code)
            .with_severity(severity)
            .with_label(LabeledSpan::new(Some(label), start, end.saturating_sub(start).max(1)))
            .with_help(format!("more: catchwater explain {}", f.code));
        if f.suggestions.len() > 1 {
            d = d.with_help(format!("{}; more: catchwater explain {}", f.suggestions[1..].join("; "), f.code));
        }
        let report = miette::Report::new(d).with_source_code(NamedSource::new(file, text.to_owned()));
        if handler.render_report(&mut out, report.as_ref()).is_err() {
            out.push_str(&format!("{file}:{}:{}: {} {}\n", f.span.line, f.span.column, f.code, f.message));
        }
    }
    out
}

/// The file's text with every password in a URL replaced, character by character, so that places stay.
fn masked(text: &str) -> String {
    let mut out = text.to_owned();
    let mut from = 0;
    while let Some(at) = out[from..].find("://").map(|i| from + i + 3) {
        let end = out[at..].find(['/', '?', '"', '\'', ' ', '\n']).map_or(out.len(), |i| at + i);
        if let Some(host) = out[at..end].rfind('@').map(|i| at + i)
            && let Some(colon) = out[at..host].find(':').map(|i| at + i)
            && !out[colon..host].contains("${")
        {
            let stars = "*".repeat(host - colon - 1);
            out.replace_range(colon + 1..host, &stars);
        }
        from = at;
    }
    out
}

fn byte_at(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = &text[start.min(text.len())..];
    let inside = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(i, _)| i);
    (start + inside).min(text.len())
}

/// The end of the span, but not beyond its first line: one underlined place reads better than a block.
fn end_byte(text: &str, span: Span) -> usize {
    if span.end_line == span.line {
        return byte_at(text, span.line, span.end_column);
    }
    let start = byte_at(text, span.line, span.column);
    start + text[start..].find('\n').unwrap_or(text.len() - start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::finding::codes;

    #[test]
    fn a_password_is_never_drawn() {
        let text = "url: \"postgres://u:canary@h/db\"\nb: postgres://h:5432/d\n";
        let finding = Finding::error(codes::SECRET, Span::at(1, 6), "a password in plain text".into());
        let drawn = render("f.yaml", text, &[finding]);
        assert!(!drawn.contains("canary"), "{drawn}");
        assert!(drawn.contains("postgres://u:******@h/db"), "{drawn}");
        assert_eq!(masked("x: postgres://u:${env:P}@h/d"), "x: postgres://u:${env:P}@h/d");
    }
}

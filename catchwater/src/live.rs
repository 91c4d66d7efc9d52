//! A view that is drawn again and again on a terminal: `top`, `lag --watch`, `dev`. Cut to the size that the terminal has at that
//! moment: a line that wraps, or one more than there is room for, would leave rubbish behind.

use crate::report::show;
use std::io::IsTerminal;
use unicode_width::UnicodeWidthChar;

/// Lines that the errors below a table may take: a third of the terminal, but at least so many.
const ERROR_LINES_MIN: usize = 3;

/// Columns and lines; `None` = a terminal that does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    pub columns: usize,
    pub lines: usize,
}

/// Of standard output; `None` = it is no terminal, or says nothing.
pub fn size() -> Option<Size> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    let known = size.ws_col > 0 && size.ws_row > 0;
    known.then_some(Size { columns: size.ws_col.into(), lines: size.ws_row.into() })
}

/// A screen of its own, without a cursor; what was there before comes back at the end.
pub struct Live(());

impl Live {
    /// `None` = standard output is no terminal.
    pub fn begin() -> Option<Live> {
        std::io::stdout().is_terminal().then(|| {
            show("\x1b[?1049h\x1b[?25l\x1b[2J");
            Live(())
        })
    }

    pub fn frame(&self, body: &str) {
        show(&drawn(&fit(body, size())));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        show("\x1b[?25h\x1b[?1049l");
    }
}

/// From the upper left corner, each line cleared to its end, the rest of the screen below: no flicker, nothing left over.
pub fn drawn(body: &str) -> String {
    let lines: Vec<String> = body.lines().map(|l| format!("{l}\x1b[K")).collect();
    format!("\x1b[H{}\x1b[J", lines.join("\n"))
}

/// Cut to `size`, the last line saying how many are not shown.
pub fn fit(body: &str, size: Option<Size>) -> String {
    let Some(size) = size else { return body.to_owned() };
    let lines: Vec<&str> = body.lines().collect();
    let cut = |l: &str| cut(l, size.columns);
    if lines.len() <= size.lines {
        return lines.into_iter().map(cut).collect::<Vec<_>>().join("\n");
    }
    let shown = size.lines.saturating_sub(1);
    let mut out: Vec<String> = lines.iter().take(shown).map(|l| cut(l)).collect();
    out.push(cut(&more(lines.len() - shown)));
    out.join("\n")
}

fn more(lines: usize) -> String {
    format!("… {lines} more lines")
}

/// At most so many columns; `…` where something is missing. Control characters are of no width and dangerous: `?`.
fn cut(line: &str, columns: usize) -> String {
    let (mut out, mut width) = (String::new(), 0);
    let mut before_last = 0;
    for c in line.chars() {
        let c = if c.is_control() { '?' } else { c };
        width += c.width().unwrap_or(0);
        if width > columns {
            out.truncate(before_last);
            out.push('…');
            return out;
        }
        out.push(c);
        if width < columns {
            before_last = out.len();
        }
    }
    out
}

/// A table with a title, and below it what is wrong: where there is no room for all rows, those that `first` puts first.
pub fn table(title: &str, header: &[&str], mut rows: Vec<Row>, size: Option<Size>) -> String {
    let errors: Vec<String> = rows.iter().filter_map(|r| r.error.clone()).collect();
    let mut below: Vec<String> = match size {
        Some(size) => errors.iter().flat_map(|e| wrapped(e, size.columns)).collect(),
        None => errors,
    };
    let mut missing = 0;
    if let Some(size) = size {
        let most = (size.lines / 3).max(ERROR_LINES_MIN);
        if below.len() > most {
            let cut = below.len() - (most - 1);
            below.truncate(most - 1);
            below.push(more(cut));
        }
        // Title, header, an empty line behind each part.
        let around = 3 + below.len() + usize::from(!below.is_empty());
        let room = size.lines.saturating_sub(around).max(1);
        if rows.len() > room {
            rows.sort_by_key(|r| (r.error.is_none(), std::cmp::Reverse(r.lag_ms)));
            missing = rows.len() - room.saturating_sub(1).max(1);
            rows.truncate(rows.len() - missing);
        }
    }
    let cells: Vec<Vec<String>> = rows.into_iter().map(|r| r.cells).collect();
    let mut out = format!("{title}\n\n{}", crate::report::table(header, &cells));
    if missing > 0 {
        out.push_str(&format!("… {missing} more, less behind than these\n"));
    }
    if !below.is_empty() {
        out.push_str(&format!("\n{}\n", below.join("\n")));
    }
    out
}

/// A title and a text below it.
pub fn paragraph(title: &str, text: &str) -> String {
    let columns = size().map_or(usize::MAX, |s| s.columns);
    format!("{title}\n\n{}\n", wrapped(text, columns).join("\n"))
}

/// A row of [`table`].
pub struct Row {
    pub cells: Vec<String>,
    pub lag_ms: u64,
    /// With whose it is.
    pub error: Option<String>,
}

/// In lines of at most so many columns, broken at blanks where there are some.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(8);
    let (mut out, mut line, mut width) = (Vec::new(), String::new(), 0);
    for word in text.split_whitespace() {
        let wide: usize = word.chars().map(|c| c.width().unwrap_or(0)).sum();
        if width > 0 && width + 1 + wide > columns {
            out.push(std::mem::take(&mut line));
            line.push_str("  ");
            width = 2;
        } else if width > 0 {
            line.push(' ');
            width += 1;
        }
        for c in word.chars() {
            let one = c.width().unwrap_or(0);
            if width + one > columns {
                out.push(std::mem::take(&mut line));
                line.push_str("  ");
                width = 2;
            }
            line.push(c);
            width += one;
        }
    }
    out.push(line);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Option<Size> = Some(Size { columns: 10, lines: 4 });

    #[test]
    fn a_view_is_no_wider_and_no_longer_than_the_terminal() {
        assert_eq!(fit("0123456789\n01234567890\nשלום\n", SMALL), "0123456789\n012345678…\nשלום");
        // A wide character that would stand half beyond the edge.
        assert_eq!(fit("01234567漢字", SMALL), "01234567…");
        assert_eq!(fit("a\tb\u{9b}31m\x1b[2J", SMALL), "a?b?31m?[…");
        assert_eq!(fit("1\n2\n3\n4\n5\n", SMALL), "1\n2\n3\n… 2 more …");
        assert_eq!(fit("1\n2\n3\n4\n", SMALL), "1\n2\n3\n4");
        let long = "x".repeat(300);
        assert_eq!(fit(&long, None), long);
    }

    #[test]
    fn what_fails_is_shown_where_there_is_no_room_for_all() {
        let row = |n: u64, error: Option<&str>| Row {
            cells: vec![format!("p{n}")],
            lag_ms: n,
            error: error.map(|e| format!("p{n}: {e}")),
        };
        let rows = || (0..50).map(|n| row(n, (n == 3).then_some("CW0609 refused for a reason that is long"))).collect();
        let seen = |columns, lines| table("top", &["P"], rows(), Some(Size { columns, lines }));
        let text = seen(30, 12);
        assert_eq!(
            text,
            "top\n\nP\np3\np49\np48\np47\np46\n… 45 more, less behind than these\n\np3: CW0609 refused for a\n  reason that is long\n"
        );
        assert!(text.lines().count() <= 12);
        for lines in 1..40 {
            let text = fit(&seen(20, lines), Some(Size { columns: 20, lines }));
            assert!(text.lines().count() <= lines, "{lines}:\n{text}");
            assert!(text.lines().all(|l| l.chars().count() <= 20), "{text}");
        }
        let all = table("top", &["P"], rows(), None);
        assert!(
            all.starts_with("top\n\nP\np0\np1\n")
                && all.ends_with("p49\n\np3: CW0609 refused for a reason that is long\n")
        );
        assert_eq!(wrapped(&"y".repeat(20), 10), ["yyyyyyyyyy", "  yyyyyyyy", "  yy"]);
    }
}

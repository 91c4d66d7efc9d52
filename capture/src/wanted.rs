//! Pure. Which tables a source captures: names (`schema.table`), whole schemas (`schema.*`), and Debezium's lists of
//! regular expressions, which are matched against `schema.table`, anchored, letter case ignored:
//!
//! | entry | a table is captured if |
//! |---|---|
//! | `schema.table`, `schema.*` | it is that, or |
//! | `/LIST/` | one of the list fits |
//! | `&/LIST/` | and of each such list one fits |
//! | `-/LIST/` | and none of these fits |
//!
//! With `&` or `-` lists alone every table is meant that they leave. Lists are of ordinary and partitioned tables, none of
//! the server's own.

use crate::shape::Pattern;

/// The lists of a source's tables; empty = names alone.
#[derive(Clone, Debug, Default)]
pub struct TableLists {
    any: Vec<Pattern>,
    all: Vec<Pattern>,
    none: Vec<Pattern>,
    /// There are no names: lists that only take away leave all others.
    alone: bool,
}

impl TableLists {
    /// The names among `entries`, and the lists. The error says which entry is none.
    pub fn parse<'a>(entries: &'a [String]) -> Result<(Vec<&'a str>, TableLists), String> {
        let mut names: Vec<&'a str> = Vec::new();
        let mut lists = TableLists::default();
        for entry in entries {
            let (kind, rest) = match entry.split_at_checked(1) {
                Some(("/", _)) => ('/', entry.as_str()),
                Some(("&", rest)) if rest.starts_with('/') => ('&', rest),
                Some(("-", rest)) if rest.starts_with('/') => ('-', rest),
                _ => {
                    names.push(entry);
                    continue;
                }
            };
            let list = rest.strip_prefix('/').and_then(|r| r.strip_suffix('/'));
            let list =
                list.ok_or_else(|| format!("`{entry}` begins a regular expression and has no `/` at its end"))?;
            let list = Pattern::parse(list)?;
            match kind {
                '/' => lists.any.push(list),
                '&' => lists.all.push(list),
                _ => lists.none.push(list),
            }
        }
        lists.alone = names.is_empty() && lists.any.is_empty() && !lists.is_empty();
        Ok((names, lists))
    }

    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.all.is_empty() && self.none.is_empty()
    }
    /// Tables may be captured that no name names.
    pub fn adds(&self) -> bool {
        self.alone || !self.any.is_empty()
    }
    /// The lists take `schema.table` away, whether a name or a list means it.
    pub fn leaves_out(&self, table: &str) -> bool {
        self.none.iter().any(|l| l.fits(table)) || !self.all.iter().all(|l| l.fits(table))
    }
    /// The lists mean `schema.table`, whatever names do.
    pub fn take(&self, table: &str) -> bool {
        (self.alone || self.any.iter().any(|l| l.fits(table))) && !self.leaves_out(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(entries: &[&str]) -> (Vec<String>, TableLists) {
        let entries: Vec<String> = entries.iter().map(|e| (*e).to_owned()).collect();
        let (names, lists) = TableLists::parse(&entries).expect("lists");
        (names.into_iter().map(str::to_owned).collect(), lists)
    }

    #[test]
    fn a_list_is_anchored_and_ignores_case() {
        let (names, l) = lists(&["a.b", "/public\\.(orders|items_\\d+),sales\\..*/"]);
        assert_eq!(names, ["a.b"]);
        for (table, is) in [
            ("public.orders", true),
            ("PUBLIC.ORDERS", true),
            ("public.items_7", true),
            ("public.items_x", false),
            ("public.orders2", false),
            ("xpublic.orders", false),
            ("sales.a", true),
            ("a.b", false),
        ] {
            assert_eq!(l.take(table), is, "{table}");
        }
        assert!(l.adds());
    }

    #[test]
    fn lists_that_take_away_leave_all_others_or_cut_names() {
        let (_, l) = lists(&["-/public\\.log_.*/"]);
        assert!(l.adds() && l.take("public.a") && l.take("s.b") && !l.take("public.log_1"));
        let (_, l) = lists(&["public.*", "-/public\\.log_.*/"]);
        assert!(!l.adds() && !l.take("public.a") && l.leaves_out("public.log_1") && !l.leaves_out("public.a"));
        let (_, l) = lists(&["/.*\\.(a|b)/", "&/(s|t)\\..*/"]);
        assert!(l.take("s.a") && l.take("t.b") && !l.take("u.a") && !l.take("s.c"));
    }

    #[test]
    fn names_alone_are_no_lists() {
        let (names, l) = lists(&["public.orders", "public.*"]);
        assert_eq!(names, ["public.orders", "public.*"]);
        assert!(l.is_empty() && !l.adds() && !l.take("public.orders") && !l.leaves_out("public.orders"));
    }

    #[test]
    fn what_is_no_list_is_said() {
        for (entry, why) in
            [("/public", "no `/` at its end"), ("/(/", "no regular expression"), ("//", "empty"), ("-/", "no `/`")]
        {
            let error = TableLists::parse(&[entry.to_owned()]).expect_err(entry);
            assert!(error.contains(why), "{entry}: {error}");
        }
    }
}

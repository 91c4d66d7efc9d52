//! `catchwater explain CODE`: the pages of `docs/errors/`, compiled in. `cargo xtask tidy` checks that none is missing.

use crate::report::{Done, Exit, Failure};
use serde_json::json;

include!("explain/pages.rs");

/// `CW0311`, `cw311` and `311` mean the same.
pub fn run(code: &str) -> Result<Done, Failure> {
    let digits: String = code.chars().filter(char::is_ascii_digit).collect();
    let wanted = format!("CW{digits:0>4}");
    match PAGES.iter().find(|(c, _)| *c == wanted) {
        Some((c, page)) => Ok(Done::new(*c, json!({"code": c, "page": page}), *page)),
        None => {
            let near = PAGES.iter().map(|(c, _)| *c).find(|c| c.starts_with(&wanted[..4])).unwrap_or("CW0001");
            let f = Failure::new(Exit::Refused, "CW0003", format!("no error has the code {code}"));
            Err(f.next(format!("codes are four digits, e.g. catchwater explain {near}")))
        }
    }
}

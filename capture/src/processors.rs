//! Pure. `post.processors` of a source: Debezium's one of its own, `ReselectColumnsPostProcessor`, which asks the database once more
//! for values that the stream did not send.
//!
//! Here those are filled from the log, with the value that the change left in the row (capture.md 13); the processor says that this
//! is wished, also where `compat.defects` would leave Debezium's placeholder. Its lists of columns, what it does about NULL (which
//! is the row's value at that moment), its cache and its ways with errors have nothing to be about.

use std::collections::BTreeMap;

const LIST: &str = "post.processors";
const RESELECT: &str = "io.debezium.processors.reselect.ReselectColumnsPostProcessor";
const UNAVAILABLE: &str = "reselect.unavailable.values";
const OPTIONS: [&str; 8] = [
    "reselect.cache.enabled",
    "reselect.cache.type",
    "reselect.columns.exclude.list",
    "reselect.columns.include.list",
    "reselect.error.handling.mode",
    "reselect.null.values",
    UNAVAILABLE,
    "reselect.use.event.key",
];

fn names<'p>(list: Option<&&'p str>) -> impl Iterator<Item = &'p str> {
    list.copied().unwrap_or_default().split(',').map(str::trim).filter(|n| !n.is_empty())
}

/// True if the property is a processor's.
pub fn has(list: Option<&&str>, key: &str) -> bool {
    names(list).any(|name| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// True if unchanged columns are to be filled whatever else is said. The error is a property and what is wrong with it.
pub fn parse(given: &BTreeMap<&str, &str>) -> Result<bool, Vec<(String, String)>> {
    let (mut fills, mut faults) = (false, Vec::new());
    for name in names(given.get(LIST)) {
        let class = given.get(format!("{name}.type").as_str()).map_or("", |c| c.trim());
        if class != RESELECT {
            let why = format!("`{class}` is not served here, where no Java classes are loaded; {RESELECT} is");
            faults.push((format!("{name}.type"), why));
            continue;
        }
        let own = given.iter().filter_map(|(k, v)| Some((k.strip_prefix(name)?.strip_prefix('.')?, *v)));
        for (option, value) in own.filter(|(option, _)| *option != "type") {
            if !OPTIONS.contains(&option) {
                faults
                    .push((format!("{name}.{option}"), format!("not an option that is known: {}", OPTIONS.join(", "))));
            } else if option == UNAVAILABLE && !["true", "false"].contains(&value.trim()) {
                faults.push((format!("{name}.{option}"), "one of true, false".into()));
            }
        }
        let unavailable = given.get(format!("{name}.{UNAVAILABLE}").as_str());
        fills |= unavailable.is_none_or(|v| v.trim() == "true");
    }
    if faults.is_empty() { Ok(fills) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_processor_is_known_and_fills() {
        let of = |given: &[(&'static str, &'static str)]| parse(&given.iter().copied().collect());
        let base = [(LIST, "r, "), ("r.type", RESELECT), ("r.reselect.columns.include.list", "public.t:c")];
        assert_eq!(of(&base), Ok(true));
        assert_eq!(of(&[base[0], base[1], ("r.reselect.unavailable.values", "false")]), Ok(false));
        assert_eq!(of(&[]), Ok(false));
        let wrong = |given| of(given).err().into_iter().flatten().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(wrong(&[(LIST, "a"), ("a.type", "com.acme.Own")]), ["a.type"]);
        assert_eq!(wrong(&[(LIST, "a")]), ["a.type"]);
        assert_eq!(wrong(&[base[0], base[1], ("r.reselect.colums", "x")]), ["r.reselect.colums"]);
        assert!(has(Some(&"r"), "r.type") && !has(Some(&"r"), "retention") && !has(None, "r.type"));
    }
}

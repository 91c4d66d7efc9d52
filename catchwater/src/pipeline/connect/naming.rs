//! Pure. A topic's name → the name of its table, as a JDBC sink and the transforms before it make it.

use regex_lite::Regex;

/// `org.apache.kafka.connect.transforms.RegexRouter`: a topic that the whole expression fits is renamed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Router {
    regex: String,
    /// In Java's words: `$1`, `${name}`, `\$`.
    replacement: String,
}

impl Router {
    /// The error says what is wrong with the expression.
    pub fn new(regex: &str, replacement: &str) -> Result<Router, String> {
        whole(regex)?;
        Ok(Router { regex: regex.to_owned(), replacement: replacement.to_owned() })
    }

    fn route(&self, topic: &str) -> String {
        match whole(&self.regex) {
            Ok(regex) => regex.replace(topic, rust_replacement(&self.replacement)).into_owned(),
            Err(_) => topic.to_owned(),
        }
    }
}

/// An expression that must fit the whole text, as Java's `matches`.
pub fn whole(regex: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{regex})$"))
        .map_err(|e| format!("`{regex}` is no regular expression of Catchwater: {e} (look-around is not known)"))
}

/// `$1x` means group 1 in Java, and group `1x` in Rust.
fn rust_replacement(java: &str) -> String {
    let mut out = String::new();
    let mut chars = java.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('$') => out.push_str("$$"),
                Some(other) => out.push(other),
                None => {}
            },
            '$' if chars.peek().is_some_and(char::is_ascii_digit) => {
                out.push_str("${");
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    out.push(digit);
                }
                out.push('}');
            }
            other => out.push(other),
        }
    }
    out
}

/// See the file head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Naming {
    /// `${topic}`, `${source.schema}`, `${source.table}` and text.
    pub format: String,
    /// Debezium's strategy makes one word of the topic; the other classes read it as a qualified name.
    pub flat: bool,
    pub routers: Vec<Router>,
}

impl Naming {
    /// Schema and name of the table that a topic `prefix.schema.table` goes to.
    pub fn table(&self, topic: &str) -> Result<(Option<String>, String), String> {
        let mut parts = topic.splitn(3, '.');
        let (_, schema, table) = (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let routed = self.routers.iter().fold(topic.to_owned(), |name, router| router.route(&name));
        let mut out = String::new();
        let mut rest = self.format.as_str();
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let end = rest[at..].find('}').ok_or("`${` without `}`")?;
            match &rest[at + 2..at + end] {
                "topic" if self.flat => out.push_str(&routed.replace('.', "_")),
                // A captured topic's first word is no schema.
                "topic" if routed == topic => out.push_str(&format!("{schema}.{table}")),
                "topic" => out.push_str(&routed),
                "source.schema" => out.push_str(schema),
                "source.table" => out.push_str(table),
                other => {
                    return Err(format!("Catchwater has no ${{{other}}}; it knows topic, source.schema, source.table"));
                }
            }
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        match out.split('.').collect::<Vec<_>>().as_slice() {
            [name] if !name.is_empty() => Ok((None, (*name).to_owned())),
            [schema, name] if !schema.is_empty() && !name.is_empty() => {
                Ok((Some((*schema).to_owned()), (*name).to_owned()))
            }
            _ => Err(format!("`{out}` is no table name: NAME or SCHEMA.NAME")),
        }
    }
}

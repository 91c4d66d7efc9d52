//! Pure. Where a PostgreSQL server is and how to log in: `postgres://user:password@host:port/database?sslmode=disable`.
//!
//! A password never appears in an error or in `Debug`. TLS is not built yet: what asks for it is refused by name, and a
//! server beyond loopback must be given `sslmode=disable` (or `prefer`, `allow`) by a person before bytes go in the clear.

use std::fmt;

/// Longest identifier of PostgreSQL, bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// A parsed connection URL.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectConfig {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    pub connect_timeout_ms: u32,
}

impl fmt::Debug for ConnectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for ConnectConfig {
    /// Without the password: safe for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// Why a URL is not taken. No variant carries the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("connection URL must begin with postgres:// or postgresql://")]
    Scheme,
    #[error("connection URL: {0}")]
    Malformed(&'static str),
    #[error(
        "connection URL: parameter '{0}' is not known (known: sslmode, connect_timeout, dbname, user, application_name)"
    )]
    Parameter(String),
    #[error("connection URL: sslmode '{0}' is not one of disable, allow, prefer, require, verify-ca, verify-full")]
    SslMode(String),
    #[error("sslmode={0} asks for TLS, which the PostgreSQL connector cannot do yet")]
    TlsWanted(String),
    #[error(
        "host {0} is not this machine, so TLS would be the default, and the PostgreSQL connector cannot do TLS yet"
    )]
    TlsDefault(String),
}

impl UrlError {
    /// True if the URL is fine and only TLS is missing.
    pub fn is_tls(&self) -> bool {
        matches!(self, UrlError::TlsWanted(_) | UrlError::TlsDefault(_))
    }
    /// The next step for a person.
    pub fn cure(&self) -> &'static str {
        if self.is_tls() {
            "put sslmode=disable into the URL to accept an unencrypted connection, or reach the server through a tunnel on 127.0.0.1"
        } else {
            "write postgres://USER:PASSWORD@HOST:PORT/DATABASE; characters such as @ : / in a password are percent-encoded"
        }
    }
}

impl ConnectConfig {
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let rest =
            url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or(UrlError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (login, place),
            None => ("", authority),
        };
        let (user, password) = match login.split_once(':') {
            Some((u, p)) => (unescape(u)?, Some(unescape(p)?)),
            None => (unescape(login)?, None),
        };
        let (host, port) = if let Some(inner) = place.strip_prefix('[') {
            let (host, rest) = inner.split_once(']').ok_or(UrlError::Malformed("'[' without ']'"))?;
            (host.to_owned(), rest.strip_prefix(':'))
        } else {
            match place.split_once(':') {
                Some((h, p)) => (unescape(h)?, Some(p)),
                None => (unescape(place)?, None),
            }
        };
        let host = if host.is_empty() { "localhost".to_owned() } else { host };
        if host.contains(',') {
            return Err(UrlError::Malformed("several hosts are not supported"));
        }
        let port = match port {
            None | Some("") => 5432,
            Some(text) => {
                text.parse::<u16>().map_err(|_| UrlError::Malformed("the port is not a number below 65536"))?
            }
        };
        let mut out =
            ConnectConfig { host, port, user, password, database: unescape(path)?, connect_timeout_ms: 10_000 };
        let mut sslmode = None;
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescape(value)?;
            match key {
                "sslmode" => sslmode = Some(value),
                "connect_timeout" => {
                    let seconds = value
                        .parse::<u32>()
                        .map_err(|_| UrlError::Malformed("connect_timeout is not a number of seconds"))?;
                    out.connect_timeout_ms = seconds.clamp(1, 600) * 1000;
                }
                "dbname" => out.database = value,
                "user" => out.user = value,
                "application_name" => {} // ours: it tells our own older worker from a stranger
                _ => return Err(UrlError::Parameter(key.to_owned())),
            }
        }
        if out.user.is_empty() {
            return Err(UrlError::Malformed("the user is missing"));
        }
        if out.database.is_empty() {
            out.database = out.user.clone();
        }
        let texts = [&out.host, &out.user, &out.database];
        if texts.iter().any(|t| t.contains('\0')) || out.password.as_ref().is_some_and(|p| p.contains('\0')) {
            return Err(UrlError::Malformed("a NUL byte"));
        }
        match sslmode.as_deref() {
            Some("disable" | "allow" | "prefer") => {}
            None if is_loopback(&out.host) => {}
            None => return Err(UrlError::TlsDefault(out.host)),
            Some(m @ ("require" | "verify-ca" | "verify-full")) => return Err(UrlError::TlsWanted(m.to_owned())),
            Some(m) => return Err(UrlError::SslMode(m.to_owned())),
        }
        Ok(out)
    }
}

/// `localhost`, 127.0.0.0/8, `::1`. Names are not resolved: what they resolve to may change.
fn is_loopback(host: &str) -> bool {
    let v4 = || {
        let parts: Vec<&str> = host.split('.').collect();
        parts.len() == 4 && parts[0] == "127" && parts.iter().all(|p| p.parse::<u8>().is_ok())
    };
    host == "localhost" || host == "::1" || v4()
}

/// Percent-decoding; what does not decode to UTF-8 is refused.
fn unescape(text: &str) -> Result<String, UrlError> {
    const BAD: UrlError = UrlError::Malformed("a '%' is not followed by two hex digits");
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b != b'%' {
            out.push(b);
            continue;
        }
        let (hex, tail) = rest.split_first_chunk::<2>().ok_or(BAD)?;
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8).ok_or(BAD);
        out.push(digit(hex[0])? << 4 | digit(hex[1])?);
        rest = tail;
    }
    String::from_utf8(out).map_err(|_| UrlError::Malformed("percent-encoded bytes are not UTF-8"))
}

/// Name of slot and publication of a source: `catchwater_<source>`; above 63 bytes cut to 43, `_`, 8 hex digits of the
/// full name's xxh3-64. Stored on the server: never change it.
pub fn object_name(source: &str) -> String {
    let full = format!("catchwater_{source}");
    // A slot's name takes [a-z0-9_] only; source names are [a-z][a-z0-9_]*, but an embedded caller may pass others.
    let legal: String =
        full.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '_' }).collect();
    if legal == full && full.len() <= NAME_BYTES_MAX {
        return full;
    }
    let hash = catchwater_base::hash::xxh3_64(full.as_bytes());
    format!("{}_{:08x}", &legal[..legal.len().min(43)], hash >> 32)
}

/// A table as the pipeline file names it: `schema.table`, or `schema.*`. A name alone is in `public`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct TableRef {
    pub schema: String,
    /// `*` = every ordinary and partitioned table of the schema.
    pub name: String,
}

impl TableRef {
    pub fn parse(text: &str) -> Self {
        match text.split_once('.') {
            Some((schema, name)) => TableRef { schema: schema.to_owned(), name: name.to_owned() },
            None => TableRef { schema: "public".to_owned(), name: text.to_owned() },
        }
    }
    pub fn is_pattern(&self) -> bool {
        self.name == "*"
    }
}

impl fmt::Display for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// `"name"` with quotes doubled: the only way a name enters SQL text.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'` with quotes doubled; sessions of ours run with `standard_conforming_strings = on`.
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_as_people_write_them() {
        let c = ConnectConfig::parse("postgres://ann:p%40ss%3A@127.0.0.1:6000/shop?connect_timeout=3").unwrap();
        assert_eq!((c.user.as_str(), c.password.as_deref(), c.port), ("ann", Some("p@ss:"), 6000));
        assert_eq!((c.host.as_str(), c.database.as_str(), c.connect_timeout_ms), ("127.0.0.1", "shop", 3000));
        let c = ConnectConfig::parse("postgresql://ann@localhost").unwrap();
        assert_eq!((c.port, c.database.as_str(), c.password), (5432, "ann", None));
        let c = ConnectConfig::parse("postgres://ann@[::1]:7/x").unwrap();
        assert_eq!((c.host.as_str(), c.port), ("::1", 7));
        // An @ inside the password, not encoded, as people paste it.
        let c = ConnectConfig::parse("postgres://ann:a@b@localhost/x").unwrap();
        assert_eq!(c.password.as_deref(), Some("a@b"));
    }

    #[test]
    fn what_is_refused_and_that_no_error_shows_the_password() {
        for (url, tls) in [
            ("mysql://a:secret@h/x", false),
            ("postgres://a:secret@h:99999/x?sslmode=disable", false),
            ("postgres://:secret@localhost/x", false),
            ("postgres://a:secret@localhost/x?sslmode=sometimes", false),
            ("postgres://a:secret@localhost/x?hosts=1", false),
            ("postgres://a:secret%@localhost/x", false),
            ("postgres://a:secret@localhost/x?sslmode=require", true),
            ("postgres://a:secret@localhost/x?sslmode=verify-full", true),
            ("postgres://a:secret@db.example.com/x", true),
        ] {
            let e = ConnectConfig::parse(url).unwrap_err();
            assert_eq!(e.is_tls(), tls, "{url}: {e}");
            assert!(!e.to_string().contains("secret") && !e.cure().contains("secret"), "{e}");
        }
        assert!(ConnectConfig::parse("postgres://a:secret@db.example.com/x?sslmode=disable").is_ok());
        let c = ConnectConfig::parse("postgres://a:secret@localhost/x").unwrap();
        assert!(!format!("{c:?} {c}").contains("secret"));
    }

    #[test]
    fn names_of_slots_fit_and_differ() {
        assert_eq!(object_name("shop"), "catchwater_shop");
        let long = "a".repeat(63);
        let name = object_name(&long);
        assert_eq!(name.len(), 52);
        assert!(name.starts_with(&format!("catchwater_{}_", "a".repeat(32))));
        assert_ne!(name, object_name(&format!("{}b", "a".repeat(62))));
        assert!(object_name("Sh-op").bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    }

    #[test]
    fn quoting() {
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
    }
}

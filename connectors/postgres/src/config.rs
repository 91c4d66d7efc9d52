//! Pure. Where a PostgreSQL server is and how to log in: libpq's URL,
//! `postgres://user:password@host:port,host2:port2/database?sslmode=verify-full&sslrootcert=system`.
//!
//! A password never appears in an error or in `Debug`. Defaults are libpq's (`sslmode=prefer`), but for two: no file of
//! the home directory is read on its own, and several hosts mean `target_session_attrs=read-write` unless said otherwise.
//! Source: PostgreSQL 17 manual, 32.1 "Database Connection Control Functions", 32.19 "SSL Support".

use std::fmt;
use std::path::Path;

/// Longest identifier of PostgreSQL, bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// Where sinks keep their positions, unless told otherwise; no list of tables means it.
pub const STATE_SCHEMA: &str = "catchwater";
/// Hosts of one URL.
const HOSTS_MAX: usize = 32;

/// One server of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    pub name: String,
    pub port: u16,
}

impl Host {
    /// `localhost`, 127.0.0.0/8, `::1`: bytes to it leave no machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.name)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// libpq's six modes. The order is from open to strict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum SslMode {
    Disable,
    /// In the clear; with TLS if the server wants that.
    Allow,
    /// With TLS; in the clear if the server has none.
    #[default]
    Prefer,
    /// TLS or nothing; the certificate is not looked at unless `sslrootcert` is given.
    Require,
    /// The certificate is signed by one of `sslrootcert`.
    VerifyCa,
    /// And it is the host's.
    VerifyFull,
}

impl SslMode {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return None,
        })
    }
    pub fn name(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// Who may sign the server's certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum RootCert {
    #[default]
    None,
    /// What the machine trusts.
    System,
    /// A PEM file.
    File(String),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsConfig {
    pub mode: SslMode,
    pub root: RootCert,
    /// PEM files of the client's certificate and key: both or none.
    pub client: Option<ClientCert>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCert {
    pub cert: String,
    pub key: String,
}

/// Which of several servers will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Target {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Target {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "any" => Target::Any,
            "read-write" => Target::ReadWrite,
            "read-only" => Target::ReadOnly,
            "primary" => Target::Primary,
            "standby" => Target::Standby,
            "prefer-standby" => Target::PreferStandby,
            _ => return None,
        })
    }
}

/// A parsed connection URL.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectConfig {
    /// At least one, tried in order.
    pub hosts: Vec<Host>,
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    /// For each host.
    pub connect_timeout_ms: u32,
    pub tls: TlsConfig,
    pub target: Target,
}

impl fmt::Debug for ConnectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for ConnectConfig {
    /// Without the password: safe for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}/{}", self.user, self.place(), self.database)
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
        "connection URL: parameter '{0}' is not known (known: sslmode, sslrootcert, sslcert, sslkey, \
         target_session_attrs, connect_timeout, host, port, dbname, user, application_name)"
    )]
    Parameter(String),
    #[error("connection URL: sslmode '{0}' is not one of disable, allow, prefer, require, verify-ca, verify-full")]
    SslMode(String),
    #[error("connection URL: {0}")]
    Tls(&'static str),
    #[error(
        "connection URL: target_session_attrs '{0}' is not one of any, read-write, read-only, primary, standby, prefer-standby"
    )]
    Target(String),
}

impl UrlError {
    /// True if only what is said of TLS is wrong.
    pub fn is_tls(&self) -> bool {
        matches!(self, UrlError::Tls(_))
    }
    /// The next step for a person.
    pub fn cure(&self) -> &'static str {
        if self.is_tls() {
            "name the files as sslrootcert=FILE (or sslrootcert=system), sslcert=FILE and sslkey=FILE"
        } else {
            "write postgres://USER:PASSWORD@HOST:PORT/DATABASE; characters such as @ : / in a password are percent-encoded"
        }
    }
}

/// What the query part says, before it is put together.
#[derive(Default)]
struct Query {
    sslmode: Option<SslMode>,
    root: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    target: Option<Target>,
    hosts: Option<String>,
    ports: Option<String>,
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
        let mut out = ConnectConfig {
            hosts: place.split(',').map(host).collect::<Result<_, _>>()?,
            user,
            password,
            database: unescape(path)?,
            connect_timeout_ms: 10_000,
            tls: TlsConfig::default(),
            target: Target::Any,
        };
        let mut said = Query::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            out.parameter(&mut said, key, unescape(value)?)?;
        }
        out.complete(said)?;
        Ok(out)
    }

    fn parameter(&mut self, said: &mut Query, key: &str, value: String) -> Result<(), UrlError> {
        match key {
            "sslmode" => said.sslmode = Some(SslMode::parse(&value).ok_or(UrlError::SslMode(value))?),
            "sslrootcert" => said.root = Some(value),
            "sslcert" => said.cert = Some(value),
            "sslkey" => said.key = Some(value),
            "target_session_attrs" => said.target = Some(Target::parse(&value).ok_or(UrlError::Target(value))?),
            "connect_timeout" => {
                let seconds = value
                    .parse::<u32>()
                    .map_err(|_| UrlError::Malformed("connect_timeout is not a number of seconds"))?;
                self.connect_timeout_ms = seconds.clamp(1, 600) * 1000;
            }
            "host" => said.hosts = Some(value),
            "port" => said.ports = Some(value),
            "dbname" => self.database = value,
            "user" => self.user = value,
            "application_name" => {} // ours: it tells our own older worker from a stranger
            _ => return Err(UrlError::Parameter(key.to_owned())),
        }
        Ok(())
    }

    fn complete(&mut self, said: Query) -> Result<(), UrlError> {
        if let Some(names) = said.hosts {
            self.hosts = names.split(',').map(|n| Host { name: name_of(n), port: 5432 }).collect();
        }
        if let Some(ports) = said.ports {
            let ports: Vec<u16> = ports.split(',').map(port).collect::<Result<_, _>>()?;
            if ports.len() != 1 && ports.len() != self.hosts.len() {
                return Err(UrlError::Malformed("as many ports as hosts, or one"));
            }
            for (i, h) in self.hosts.iter_mut().enumerate() {
                h.port = ports[if ports.len() == 1 { 0 } else { i }];
            }
        }
        if self.hosts.len() > HOSTS_MAX {
            return Err(UrlError::Malformed("more than 32 hosts"));
        }
        if self.user.is_empty() {
            return Err(UrlError::Malformed("the user is missing"));
        }
        if self.database.is_empty() {
            self.database = self.user.clone();
        }
        let texts = [&self.user, &self.database];
        let nul = |t: &str| t.contains('\0');
        if texts.into_iter().chain(self.hosts.iter().map(|h| &h.name)).any(|t| nul(t))
            || self.password.as_deref().is_some_and(nul)
        {
            return Err(UrlError::Malformed("a NUL byte"));
        }
        if self.hosts.iter().any(|h| h.name.starts_with('/')) {
            return Err(UrlError::Malformed("a Unix socket is not reached by this connector: name host and port"));
        }
        self.target = said.target.unwrap_or(if self.hosts.len() > 1 { Target::ReadWrite } else { Target::Any });
        self.tls.root = match said.root.as_deref() {
            None | Some("") => RootCert::None,
            Some("system") => RootCert::System,
            Some(file) => RootCert::File(file.to_owned()),
        };
        // As libpq: whoever trusts the whole world's authorities must look at the name.
        let default = if self.tls.root == RootCert::System { SslMode::VerifyFull } else { SslMode::Prefer };
        self.tls.mode = said.sslmode.unwrap_or(default);
        if self.tls.root == RootCert::System && self.tls.mode != SslMode::VerifyFull {
            return Err(UrlError::Tls("sslrootcert=system needs sslmode=verify-full"));
        }
        if self.tls.mode >= SslMode::VerifyCa && self.tls.root == RootCert::None {
            return Err(UrlError::Tls("sslmode=verify-ca and verify-full need sslrootcert"));
        }
        self.tls.client = match (said.cert, said.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(ClientCert { cert, key }),
            _ => return Err(UrlError::Tls("sslcert and sslkey come together")),
        };
        Ok(())
    }

    /// Files of TLS that are not absolute are meant from here: the folder of the pipeline file.
    pub fn relative_to(mut self, base: &Path) -> Self {
        let place = |file: &mut String| *file = base.join(&*file).to_string_lossy().into_owned();
        if let RootCert::File(file) = &mut self.tls.root {
            place(file);
        }
        if let Some(client) = &mut self.tls.client {
            place(&mut client.cert);
            place(&mut client.key);
        }
        self
    }

    /// `host:port`, or all of them: for messages.
    pub fn place(&self) -> String {
        self.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

fn name_of(text: &str) -> String {
    if text.is_empty() { "localhost".to_owned() } else { text.to_owned() }
}

fn port(text: &str) -> Result<u16, UrlError> {
    match text {
        "" => Ok(5432),
        text => text.parse().map_err(|_| UrlError::Malformed("the port is not a number below 65536")),
    }
}

/// `name`, `name:port`, `[v6]:port`.
fn host(place: &str) -> Result<Host, UrlError> {
    let (name, after) = if let Some(inner) = place.strip_prefix('[') {
        let (name, rest) = inner.split_once(']').ok_or(UrlError::Malformed("'[' without ']'"))?;
        (name.to_owned(), rest.strip_prefix(':'))
    } else {
        match place.split_once(':') {
            Some((h, p)) => (unescape(h)?, Some(p)),
            None => (unescape(place)?, None),
        }
    };
    Ok(Host { name: name_of(&name), port: port(after.unwrap_or(""))? })
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
        assert_eq!((c.user.as_str(), c.password.as_deref()), ("ann", Some("p@ss:")));
        assert_eq!((c.place().as_str(), c.database.as_str(), c.connect_timeout_ms), ("127.0.0.1:6000", "shop", 3000));
        let c = ConnectConfig::parse("postgresql://ann@localhost").unwrap();
        assert_eq!((c.place().as_str(), c.database.as_str(), c.password), ("localhost:5432", "ann", None));
        assert_eq!((c.tls, c.target), (TlsConfig::default(), Target::Any));
        let c = ConnectConfig::parse("postgres://ann@[::1]:7/x").unwrap();
        assert_eq!(c.place(), "[::1]:7");
        assert!(c.hosts[0].is_loopback());
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
            ("postgres://a:secret@h,h2/x?target_session_attrs=fastest", false),
            ("postgres://a:secret@h,h2/x?port=1,2,3", false),
            ("postgres://a:secret@%2Frun%2Fpg/x", false),
            ("postgres://a:secret@localhost/x?sslmode=verify-full", true),
            ("postgres://a:secret@localhost/x?sslmode=verify-ca", true),
            ("postgres://a:secret@localhost/x?sslmode=require&sslrootcert=system", true),
            ("postgres://a:secret@localhost/x?sslmode=require&sslcert=a.crt", true),
        ] {
            let e = ConnectConfig::parse(url).unwrap_err();
            assert_eq!(e.is_tls(), tls, "{url}: {e}");
            assert!(!e.to_string().contains("secret") && !e.cure().contains("secret"), "{e}");
        }
        let c = ConnectConfig::parse("postgres://a:secret@localhost/x").unwrap();
        assert!(!format!("{c:?} {c}").contains("secret"));
    }

    #[test]
    fn several_hosts_and_what_is_asked_of_tls() {
        let c = ConnectConfig::parse("postgres://a@h1:1,[::1]:2,h3/x").unwrap();
        assert_eq!((c.place().as_str(), c.target), ("h1:1,[::1]:2,h3:5432", Target::ReadWrite));
        let c = ConnectConfig::parse("postgres://a@/x?host=h1,h2&port=7,8&target_session_attrs=any").unwrap();
        assert_eq!((c.place().as_str(), c.target), ("h1:7,h2:8", Target::Any));
        let c = ConnectConfig::parse("postgres://a@h1,h2/x?port=9").unwrap();
        assert_eq!(c.place(), "h1:9,h2:9");
        let c = ConnectConfig::parse("postgres://a@h/x?sslrootcert=system").unwrap();
        assert_eq!((c.tls.mode, c.tls.root), (SslMode::VerifyFull, RootCert::System));
        let c = ConnectConfig::parse("postgres://a@h/x?sslmode=verify-ca&sslrootcert=%2Fca%20x.pem&sslcert=c&sslkey=k");
        let tls = c.unwrap().tls;
        assert_eq!((tls.mode, tls.root), (SslMode::VerifyCa, RootCert::File("/ca x.pem".into())));
        assert_eq!(tls.client, Some(ClientCert { cert: "c".into(), key: "k".into() }));
        let c = ConnectConfig::parse("postgres://a@h/x?sslmode=verify-ca&sslrootcert=ca&sslcert=/c&sslkey=k").unwrap();
        let tls = c.relative_to(Path::new("/etc/p")).tls;
        assert_eq!(tls.root, RootCert::File("/etc/p/ca".into()));
        assert_eq!(tls.client, Some(ClientCert { cert: "/c".into(), key: "/etc/p/k".into() }));
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

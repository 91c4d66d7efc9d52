//! How a connection comes to be: which host, with TLS or without, and what is tried next when that fails. The plan is
//! libpq's: hosts in order, for `prefer` and `allow` a second try the other way round, a server of the wrong kind
//! (`target_session_attrs`) passed over, a login that is refused not repeated elsewhere.
//!
//! A caller dials, logs in over what it got, and says how that went: [`Dialer::next`], then [`Dialer::fits`] or
//! [`Dialer::failed`], until one is accepted or nothing is left.
//! Source: PostgreSQL 17 manual, 32.1.1.3 "Specifying Multiple Hosts", 53.2.10 "SSL Session Encryption".

use crate::config::{ConnectConfig, Host, SslMode, Target};
use crate::fault::Fault;
use crate::tls;
use catchwater_runtime::net::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, TcpStream};
use catchwater_runtime::time::timeout;
use rustix::net::sockopt;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{BufReader, ReadBuf};
use tokio_rustls::client::TlsStream;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes the server does not acknowledge for so long mean that it is gone, milliseconds.
const USER_TIMEOUT_MS: u32 = 30_000;

/// What TLS reads from: it asks for 4 KiB at a time, each a system call else.
pub type Buffered = BufReader<TcpStream>;
const TLS_READ_BYTES: usize = 64 * 1024;

/// A connected socket, encrypted or not.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<Buffered>>),
}

impl Wire {
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Wire::Tls(_))
    }

    /// Another descriptor of the same socket. It keeps the connection open.
    pub fn socket(&self) -> Option<OwnedFd> {
        let stream = match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream.get_ref().0.get_ref(),
        };
        stream.as_fd().try_clone_to_owned().ok()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Wire::Tls(s) => Pin::new(&mut **s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Wire::Tls(s) => Pin::new(&mut **s).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(s) => Pin::new(s).poll_flush(cx),
            Wire::Tls(s) => Pin::new(&mut **s).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Wire::Tls(s) => Pin::new(&mut **s).poll_shutdown(cx),
        }
    }
}

/// What a server says of itself after login.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    /// `in_hot_standby`.
    pub standby: bool,
    /// `default_transaction_read_only`.
    pub read_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tls {
    Never,
    IfOffered,
    Must,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Try {
    host: usize,
    tls: Tls,
    want: Target,
}

/// All tries, in order.
fn plan(config: &ConnectConfig) -> Vec<Try> {
    let passes: &[Target] = match config.target {
        Target::PreferStandby => &[Target::Standby, Target::Any],
        _ => std::slice::from_ref(&config.target),
    };
    let tls: &[Tls] = match config.tls.mode {
        SslMode::Disable => &[Tls::Never],
        SslMode::Allow => &[Tls::Never, Tls::Must],
        // A certificate that was to be checked and is not right is no reason to go on in the clear.
        SslMode::Prefer if config.tls.root == crate::config::RootCert::None => &[Tls::IfOffered, Tls::Never],
        SslMode::Prefer => &[Tls::IfOffered],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Tls::Must],
    };
    let mut out = Vec::new();
    for want in passes {
        for host in 0..config.hosts.len() {
            out.extend(tls.iter().map(|tls| Try { host, tls: *tls, want: *want }));
        }
    }
    out
}

pub struct Dialer<'a> {
    config: &'a ConnectConfig,
    plan: Vec<Try>,
    /// The try after the one in work.
    next: usize,
    /// Why the tries so far failed, one text per host.
    failures: Vec<String>,
    last: Option<Fault>,
}

impl<'a> Dialer<'a> {
    pub fn new(config: &'a ConnectConfig) -> Self {
        Dialer { config, plan: plan(config), next: 0, failures: Vec::new(), last: None }
    }

    /// Time a host may take, login included.
    pub fn limit(&self) -> Duration {
        Duration::from_millis(u64::from(self.config.connect_timeout_ms))
    }

    /// The next socket that comes up; the failure when nothing is left to try.
    pub async fn next(&mut self) -> Result<Wire, Fault> {
        loop {
            let Some(now) = self.plan.get(self.next).copied() else { return Err(self.verdict()) };
            self.next += 1;
            let host = &self.config.hosts[now.host];
            let limit = self.limit();
            let dialed = timeout(limit, dial(self.config, host, now.tls)).await;
            match dialed.unwrap_or_else(|_| Err(silent(limit))) {
                Ok(wire) => return Ok(wire),
                Err(fault) => self.failed(fault)?,
            }
        }
    }

    fn current(&self) -> Try {
        self.plan[self.next - 1]
    }

    pub fn host(&self) -> &Host {
        &self.config.hosts[self.current().host]
    }

    /// The login over the last socket failed. `Err` = trying on cannot help.
    pub fn failed(&mut self, fault: Fault) -> Result<(), Fault> {
        let now = self.current();
        let same_host = self.plan.get(self.next).is_some_and(|t| t.host == now.host && t.want == now.want);
        match &fault {
            // The other way round may do: "no pg_hba.conf entry for …, no encryption", a handshake that fails.
            Fault::Tls(_) | Fault::NotAdmitted(_) if same_host => {
                self.last = Some(fault);
                return Ok(());
            }
            Fault::Auth(_) | Fault::NotAdmitted(_) | Fault::NoDatabase(_) => return Err(fault),
            // Of two tries at one host the first failure says more.
            Fault::Closed(_) | Fault::Unreachable(_) if matches!(self.last, Some(Fault::Tls(_))) => {}
            _ => self.last = Some(fault),
        }
        if let Some(last) = &self.last {
            let text = format!("{}: {last}", self.config.hosts[now.host]);
            if !self.failures.contains(&text) {
                self.failures.push(text);
            }
        }
        while self.plan.get(self.next).is_some_and(|t| t.host == now.host && t.want == now.want) {
            self.next += 1;
        }
        if self.next >= self.plan.len() { Err(self.verdict()) } else { Ok(()) }
    }

    /// True if the server is of the kind that was asked for; else it is passed over.
    pub fn fits(&mut self, shown: Shown) -> Result<bool, Fault> {
        let wrong = match self.current().want {
            Target::Any | Target::PreferStandby => return Ok(true),
            Target::ReadWrite if shown.standby || shown.read_only => "it is read-only",
            Target::ReadOnly if !shown.standby && !shown.read_only => "it is not read-only",
            Target::Primary if shown.standby => "it is a standby",
            Target::Standby if !shown.standby => "it is not a standby",
            _ => return Ok(true),
        };
        self.last = None;
        self.failed(Fault::Unreachable(format!("{wrong}, and target_session_attrs asks for another")))?;
        Ok(false)
    }

    fn verdict(&mut self) -> Fault {
        let last = self.last.take();
        match last {
            Some(last) if self.config.hosts.len() == 1 => last,
            _ => Fault::Unreachable(self.failures.join("; ")),
        }
    }
}

pub fn silent(limit: Duration) -> Fault {
    Fault::Unreachable(format!("no answer within {} ms", limit.as_millis()))
}

fn buffered(stream: TcpStream) -> Buffered {
    BufReader::with_capacity(TLS_READ_BYTES, stream)
}

async fn dial(config: &ConnectConfig, host: &Host, wish: Tls) -> Result<Wire, Fault> {
    let unreachable = |e: std::io::Error| Fault::Unreachable(e.to_string());
    let mut stream = TcpStream::connect((host.name.as_str(), host.port)).await.map_err(unreachable)?;
    // Without them a dead server is noticed later, by our own timeouts.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT_MS);
    if wish == Tls::Never {
        return Ok(Wire::Plain(stream));
    }
    stream.write_all(&SSL_REQUEST).await.map_err(unreachable)?;
    // One byte and no more: what came behind it in the clear would else be taken for the encrypted answer.
    let mut answer = [0];
    stream.read_exact(&mut answer).await.map_err(unreachable)?;
    match (answer[0], wish) {
        (b'S', _) => Ok(Wire::Tls(Box::new(tls::handshake(&config.tls, host, buffered(stream)).await?))),
        (b'N', Tls::IfOffered) => Ok(Wire::Plain(stream)),
        (b'N', _) => {
            Err(Fault::Tls(format!("the server has no TLS, and sslmode={} asks for it", config.tls.mode.name())))
        }
        (b'E', _) => Err(Fault::Unreachable("the server answers with an error (too many connections?)".into())),
        (other, _) => Err(Fault::Unreachable(format!("0x{other:02x} answers SSLRequest: this is no PostgreSQL"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tries(url: &str) -> String {
        let config = ConnectConfig::parse(url).unwrap();
        let show = |t: &Try| format!("{}{:?}{:?}", t.host, t.tls, t.want);
        plan(&config).iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_plan_is_libpqs() {
        let plain = "postgres://a@h,i/x?sslmode=disable&target_session_attrs=";
        assert_eq!(tries(&format!("{plain}any")), "0NeverAny 1NeverAny");
        assert_eq!(tries(&format!("{plain}prefer-standby")), "0NeverStandby 1NeverStandby 0NeverAny 1NeverAny");
        assert_eq!(tries("postgres://a@h/x"), "0IfOfferedAny 0NeverAny");
        assert_eq!(tries("postgres://a@h/x?sslrootcert=f&sslmode=prefer"), "0IfOfferedAny");
        assert_eq!(tries("postgres://a@h/x?sslmode=allow"), "0NeverAny 0MustAny");
        assert_eq!(tries("postgres://a@h/x?sslrootcert=system"), "0MustAny");
    }

    /// Walks the plan with failures alone; `next` of the real one only adds sockets.
    fn walk(url: &str, faults: &[Fault]) -> (Vec<String>, Fault) {
        let config = ConnectConfig::parse(url).unwrap();
        let mut dialer = Dialer::new(&config);
        let mut seen = Vec::new();
        for fault in faults {
            let now = dialer.plan[dialer.next];
            dialer.next += 1;
            seen.push(format!("{}{:?}", now.host, now.tls));
            if let Err(end) = dialer.failed(fault.clone()) {
                return (seen, end);
            }
        }
        panic!("more tries than failures: {seen:?}");
    }

    #[test]
    fn what_is_tried_after_a_failure() {
        let away = || Fault::Unreachable("away".into());
        let (seen, end) = walk("postgres://a@h,i/x", &[away(), away()]);
        assert_eq!(seen, ["0IfOffered", "1IfOffered"]);
        assert_eq!(end, Fault::Unreachable("h:5432: away; i:5432: away".into()));
        // A wrong password is wrong everywhere.
        let (seen, end) = walk("postgres://a@h,i/x", &[Fault::Auth("no".into())]);
        assert_eq!((seen.len(), end), (1, Fault::Auth("no".into())));
        // Not admitted with TLS: once more in the clear, then it is final.
        let no = || Fault::NotAdmitted("no entry".into());
        let (seen, end) = walk("postgres://a@h,i/x", &[no(), no()]);
        assert_eq!((seen, end), (vec!["0IfOffered".to_owned(), "0Never".to_owned()], no()));
        let tls = || Fault::Tls("bad".into());
        let (seen, end) = walk("postgres://a@h/x?sslmode=require", &[tls()]);
        assert_eq!((seen.len(), end), (1, tls()));
        // The handshake failed, and in the clear the server hangs up: TLS is what a person must hear of.
        let (_, end) = walk("postgres://a@h/x", &[tls(), Fault::Closed("gone".into())]);
        assert_eq!(end, tls());
    }

    #[test]
    fn servers_of_the_wrong_kind_are_passed_over() {
        let fits = |target: &str, standby, read_only| {
            let config = ConnectConfig::parse(&format!("postgres://a@h,i/x?target_session_attrs={target}")).unwrap();
            let mut dialer = Dialer::new(&config);
            dialer.next = 1;
            dialer.fits(Shown { standby, read_only }).unwrap()
        };
        for (target, primary, standby, read_only) in [
            ("any", true, true, true),
            ("read-write", true, false, false),
            ("read-only", false, true, true),
            ("primary", true, false, true),
            ("standby", false, true, false),
            ("prefer-standby", false, true, false),
        ] {
            assert_eq!(fits(target, false, false), primary, "{target}");
            assert_eq!(fits(target, true, false), standby, "{target}");
            assert_eq!(fits(target, false, true), read_only, "{target}");
        }
    }
}

//! The HTTP faces. Kafka Connect's has a port of its own (`connect.rs`). The other: `/metrics`, `/livez`, `/startupz`, `/readyz`, `/healthz/pipelines`, and `/api/v1`, which the command line asks. Loopback only.
//! Bounds: header 16 KiB, body 4 MiB, 64 connections at a time, 10 s per request head and body.
//!
//! A web page in a browser on this machine can reach a loopback address, too. So `/api` answers only requests whose `Host`
//! is this machine's (a page of another name that resolves to 127.0.0.1 has its own), none with an `Origin`, and takes
//! changes only as `application/json`, which a page cannot send elsewhere without being asked first.

use crate::connect;
use crate::report::{Exit, Failure};
use bytes::Bytes;
use catchwater_runtime::shutdown::Stopped;
use catchwater_runtime::spawn::Tasks;
use catchwater_runtime::sync::{Semaphore, oneshot};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
pub use tokio::net::TcpListener;
use tokio::net::TcpStream;

const CONNECTIONS_MAX: usize = 64;
/// How long the command line waits: a plan asks databases, each at most 20 s.
const CALL_LIMIT: Duration = Duration::from_secs(60);
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// A pipeline file of 1 MiB, escaped as JSON.
const BODY_BYTES_MAX: usize = 4 << 20;
/// How long a request's body may take.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// A request to `/api/v1`.
pub struct Call {
    pub verb: Verb,
    /// After `/api/v1/`, as it was sent.
    pub path: String,
    /// Null if there is none.
    pub body: Value,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Get,
    Post,
    Delete,
}

/// How the pipelines are. Nothing of it concerns the node: a sink that stands is no reason to restart a broker.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pipelines {
    pub needs_person: bool,
    pub text: String,
}

/// What the faces show. Implemented by the assembled node.
pub trait View: Send + Sync + 'static {
    /// OpenMetrics text.
    fn metrics(&self) -> String;
    /// Lines behind the "ok" of a node that is ready, though not all of it works.
    fn impaired(&self) -> String;
    /// `None` = ready, else why not.
    fn not_ready(&self) -> Option<String>;
    /// What was looked at for that, a line each.
    fn checks(&self) -> String;
    /// Every task that is not at work, a line each, and whether one of them waits for a person.
    fn pipelines(&self) -> Pipelines;
    fn api<'a>(&'a self, call: Call) -> catchwater_runtime::Fut<'a, Result<Value, Failure>>;
}

/// Kafka Connect's face.
pub trait ConnectView: Send + Sync + 'static {
    fn answer<'a>(&'a self, request: connect::Request) -> catchwater_runtime::Fut<'a, connect::Reply>;
}

/// Binds, so that the address is known before anything is served.
pub async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(Exit::Environment, "CW0001", format!("cannot listen on {address} (HTTP)"))
            .cause(e.to_string())
            .next("stop the other process, or choose another address with --http (port 0 picks a free one)")
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Serves until stopped.
pub async fn serve(listener: TcpListener, view: Arc<dyn View>, stopped: Stopped) {
    accept(listener, stopped, move |r| answer(Arc::clone(&view), r)).await;
}

/// Serves Kafka Connect's face until stopped.
pub async fn serve_connect(listener: TcpListener, view: Arc<dyn ConnectView>, stopped: Stopped) {
    accept(listener, stopped, move |r| connect_answer(Arc::clone(&view), r)).await;
}

async fn accept<F, A>(listener: TcpListener, mut stopped: Stopped, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let (connections, permits) = (Tasks::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    let changes = Arc::new(Tasks::new());
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            () = stopped.wait() => break,
        };
        let Ok((stream, _)) = accepted else {
            catchwater_runtime::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (answer, changes, permit) = (answer.clone(), Arc::clone(&changes), Arc::new(permit));
        connections.spawn("http.connection", async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let reads = matches!(*request.method(), Method::GET | Method::HEAD);
                let (work, changes, permit) = (answer(request), Arc::clone(&changes), Arc::clone(&permit));
                async move {
                    if reads {
                        return work.await;
                    }
                    // A change goes to its end also when its client goes away (Ctrl-C): half of it may be worse than none.
                    let (tell, told) = oneshot::channel();
                    changes.spawn("http.change", async move {
                        let _ = tell.send(work.await);
                        drop(permit);
                    });
                    told.await
                        .unwrap_or_else(|_| Ok(reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", String::new())))
                }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_buf_size(HEADER_BYTES_MAX);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(view: Arc<dyn View>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(rest) = request.uri().path().strip_prefix("/api/v1/") {
        let rest = rest.to_owned();
        return Ok(match api(view, rest, request).await {
            Ok(value) => reply(StatusCode::OK, "application/json", format!("{value}\n")),
            Err(f) => refused(&f),
        });
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Ok(reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET here\n".into()));
    }
    let path = request.uri().path().to_owned();
    let plain = |status, body| reply(status, "text/plain; charset=utf-8", body);
    let verbose =
        request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "verbose" || p.starts_with("verbose=")));
    Ok(match path.as_str() {
        // Who answers has started: the port is served behind the recovery of the log.
        "/livez" | "/startupz" => plain(StatusCode::OK, "ok\n".into()),
        "/readyz" => {
            let checks = if verbose { view.checks() } else { String::new() };
            match view.not_ready() {
                None => plain(StatusCode::OK, format!("ok\n{}{checks}", view.impaired())),
                Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n{checks}")),
            }
        }
        "/healthz/pipelines" => {
            let found = view.pipelines();
            let status = if found.needs_person { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            plain(status, if found.text.is_empty() { "ok\n".into() } else { found.text })
        }
        "/metrics" => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            reply(StatusCode::OK, kind, view.metrics())
        }
        _ => reply(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n".into()),
    })
}

/// Requests of other hosts and of web pages are refused as in `api`. `connectors` and `connectors/` are one.
async fn connect_answer(
    view: Arc<dyn ConnectView>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let foreign = !local_host(&header(hyper::header::HOST)) || request.headers().contains_key(hyper::header::ORIGIN);
    let json = header(hyper::header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim() == "application/json";
    let method = request.method().clone();
    let segments = request.uri().path().split('/').filter(|s| !s.is_empty());
    let path = segments.map(|s| unescape(s, false)).collect();
    let pairs = request.uri().query().unwrap_or_default().split('&').filter(|p| !p.is_empty());
    let query = pairs
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (unescape(k, true), unescape(v, true)))
        .collect();
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let answer = match catchwater_runtime::time::timeout(BODY_LIMIT, body).await {
        _ if foreign => connect::refuse(403, "CW0347 the request does not come from a tool on this machine"),
        Ok(Ok(body)) => view.answer(connect::Request { method, path, query, body: body.to_bytes(), json }).await,
        Ok(Err(e)) => connect::refuse(400, e.to_string()),
        Err(_) => connect::refuse(408, format!("the body did not come within {} s", BODY_LIMIT.as_secs())),
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match answer.body {
        Some(body) => reply(status, "application/json", body.to_string()),
        None => {
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = status;
            response
        }
    };
    if let Some(place) = answer.location.and_then(|l| hyper::header::HeaderValue::from_str(&l).ok()) {
        response.headers_mut().insert(hyper::header::LOCATION, place);
    }
    Ok(response)
}

/// Percent-decoding; what is malformed stays as it is. `plus`: it is a space, as in a query.
pub fn unescape(text: &str, plus: bool) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((b, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (*b, hex) {
            (b'%', Some(v)) => {
                out.push(v);
                rest = &tail[2..];
            }
            (b, _) => {
                out.push(if plus && b == b'+' { b' ' } else { b });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn api(view: Arc<dyn View>, path: String, request: Request<Incoming>) -> Result<Value, Failure> {
    let denied = |why: &str| {
        Failure::new(Exit::Refused, "CW0347", "the request does not come from a tool on this machine")
            .cause(why)
            .next("ask by 127.0.0.1, [::1] or localhost, without a browser; changes as application/json")
    };
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    if !local_host(&header(hyper::header::HOST)) {
        return Err(denied("its Host names another machine"));
    }
    if request.headers().contains_key(hyper::header::ORIGIN) {
        return Err(denied("it was sent by a web page"));
    }
    let verb = match *request.method() {
        Method::GET | Method::HEAD => return view.api(Call { verb: Verb::Get, path, body: Value::Null }).await,
        Method::POST => Verb::Post,
        Method::DELETE => Verb::Delete,
        _ => return Err(Failure::new(Exit::Refused, "CW0008", "not found").cause("GET, POST and DELETE are known")),
    };
    let kind = header(hyper::header::CONTENT_TYPE);
    if kind.split(';').next().unwrap_or_default().trim() != "application/json" {
        return Err(denied("a change must be sent as application/json"));
    }
    let bad = |why: String| Failure::new(Exit::Refused, "CW0346", "the request's body is not understood").cause(why);
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = match catchwater_runtime::time::timeout(BODY_LIMIT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(e)) => return Err(bad(e.to_string())),
        Err(_) => return Err(bad(format!("it did not come within {} s", BODY_LIMIT.as_secs()))),
    };
    let body =
        if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))? };
    view.api(Call { verb, path, body }).await
}

/// `127.0.0.1:8080`, `[::1]`, `localhost`: this machine by whatever name no foreign page can have.
fn local_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A failure as an answer; the command line makes the same failure of it.
fn refused(f: &Failure) -> Response<Full<Bytes>> {
    let status = match (f.exit, f.code.as_str()) {
        (_, "CW0008" | "CW0344" | "CW0345") => StatusCode::NOT_FOUND,
        (_, "CW0347") => StatusCode::FORBIDDEN,
        (_, "CW0342" | "CW0343") => StatusCode::CONFLICT,
        (Exit::Refused, _) => StatusCode::UNPROCESSABLE_ENTITY,
        (Exit::Environment, _) => StatusCode::FAILED_DEPENDENCY,
        (Exit::Runtime, _) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let error = json!({
        "code": f.code, "message": f.message, "cause": f.cause, "next": f.next, "exit": f.exit as u8,
        "details": f.details,
    });
    reply(status, "application/json", format!("{}\n", json!({"error": error})))
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// Asks a node for the command line. What it refuses comes back as the failure that it is.
pub async fn call(address: &str, call: Call) -> Result<Value, Failure> {
    let failed = |cause: String| {
        Failure::new(Exit::Environment, "CW0007", format!("no node answers at http://{address}"))
            .cause(cause)
            .next("is it running? give its address with --http")
    };
    let ask = async {
        let stream = TcpStream::connect(address).await.map_err(|e| failed(e.to_string()))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.to_string()))?;
        let driver = catchwater_runtime::spawn::spawn("http.client", connection);
        let method = match call.verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Delete => Method::DELETE,
        };
        let body = if call.body.is_null() { Bytes::new() } else { Bytes::from(call.body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{}", call.path))
            .header(hyper::header::HOST, address)
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| failed(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), 64 << 20).collect().await.map_err(|e| failed(e.to_string()))?;
        drop(driver);
        let value: Value = serde_json::from_slice(&body.to_bytes()).map_err(|e| failed(format!("{status}: {e}")))?;
        if status.is_success() { Ok(value) } else { Err(told(&value["error"])) }
    };
    match catchwater_runtime::time::timeout(CALL_LIMIT, ask).await {
        Ok(answer) => answer,
        Err(_) => Err(failed(format!("no answer within {} s", CALL_LIMIT.as_secs()))),
    }
}

/// A request to any HTTP server; its status and its answer as JSON, null if it has none.
pub async fn exchange(address: &str, method: Method, path: &str, body: Value) -> Result<(u16, Value), Failure> {
    let failed = |cause: String| {
        Failure::new(Exit::Environment, "CW0007", format!("nothing answers at http://{address}"))
            .cause(cause)
            .next("check the address")
    };
    let ask = async {
        let stream = TcpStream::connect(address).await.map_err(|e| failed(e.to_string()))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.to_string()))?;
        let driver = catchwater_runtime::spawn::spawn("http.client", connection);
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, address)
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| failed(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|e| failed(e.to_string()))?.to_bytes();
        drop(driver);
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    };
    match catchwater_runtime::time::timeout(CALL_LIMIT, ask).await {
        Ok(answer) => answer,
        Err(_) => Err(failed(format!("no answer within {} s", CALL_LIMIT.as_secs()))),
    }
}

pub async fn get(address: &str, path: &str) -> Result<Value, Failure> {
    call(address, Call { verb: Verb::Get, path: path.to_owned(), body: Value::Null }).await
}

/// The failure that a node told.
fn told(error: &Value) -> Failure {
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    let exit = match error["exit"].as_u64() {
        Some(2) => Exit::Refused,
        Some(3) => Exit::Environment,
        _ => Exit::Runtime,
    };
    let mut failure = Failure::new(exit, &text("code"), text("message")).cause(text("cause")).next(text("next"));
    failure.details = Some(error["details"].clone()).filter(|d| !d.is_null()).map(Box::new);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["127.0.0.1:8080", "127.9.9.9", "[::1]:80", "localhost:1", "LOCALHOST"] {
            assert!(local_host(host), "{host}");
        }
        for host in ["", "example.com", "127.0.0.1.example.com", "localhost.example.com:80", "192.168.0.1", "[2001::1]"]
        {
            assert!(!local_host(host), "{host}");
        }
    }

    /// Two steps; between them the client is gone.
    struct Steps(std::sync::atomic::AtomicU32, tokio::sync::Notify);

    impl View for Steps {
        fn metrics(&self) -> String {
            String::new()
        }
        fn impaired(&self) -> String {
            String::new()
        }
        fn not_ready(&self) -> Option<String> {
            None
        }
        fn checks(&self) -> String {
            String::new()
        }
        fn pipelines(&self) -> Pipelines {
            Pipelines::default()
        }
        fn api<'a>(&'a self, _: Call) -> catchwater_runtime::Fut<'a, Result<Value, Failure>> {
            Box::pin(async move {
                use std::sync::atomic::Ordering::SeqCst;
                self.0.store(1, SeqCst);
                self.1.notify_one();
                catchwater_runtime::time::sleep(Duration::from_millis(100)).await;
                self.0.store(2, SeqCst);
                self.1.notify_one();
                Ok(Value::Null)
            })
        }
    }

    #[tokio::test]
    async fn a_change_goes_to_its_end_when_its_client_goes_away() {
        use tokio::io::AsyncWriteExt;
        let (listener, address) = bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let (_stop, stopped) = catchwater_runtime::shutdown::channel();
        let view = Arc::new(Steps(Default::default(), tokio::sync::Notify::new()));
        let server = catchwater_runtime::spawn::spawn("server", serve(listener, view.clone(), stopped));
        let mut client = TcpStream::connect(address).await.expect("connects");
        let head = "POST /api/v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        client.write_all(head.as_bytes()).await.expect("sends");
        view.1.notified().await;
        drop(client);
        let end = catchwater_runtime::time::timeout(Duration::from_secs(5), view.1.notified()).await;
        assert!(end.is_ok(), "it stopped at step {:?}", view.0);
        drop(server);
    }

    #[test]
    fn a_failure_comes_back_as_it_was_told() {
        let mut f = Failure::new(Exit::Refused, "CW0342", "m").cause("c").next("n");
        f.details = Some(Box::new(json!({"a": 1})));
        let error = json!({"code": f.code, "message": f.message, "cause": f.cause, "next": f.next, "exit": f.exit as u8, "details": f.details});
        assert_eq!(told(&error), f);
    }
}

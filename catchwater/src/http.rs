//! The HTTP face: `/metrics`, `/livez`, `/readyz`, and the read-only `/api/v1` that the command line asks. Loopback only.
//! Bounds: header 16 KiB, 64 connections at a time, 10 s per request head; bodies are refused.

use crate::report::{Exit, Failure};
use bytes::Bytes;
use catchwater_runtime::shutdown::Stopped;
use catchwater_runtime::spawn::Tasks;
use catchwater_runtime::sync::Semaphore;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// What the faces show. Implemented by the assembled node.
pub trait View: Send + Sync + 'static {
    /// OpenMetrics text.
    fn metrics(&self) -> String;
    /// `None` = ready, else why not.
    fn not_ready(&self) -> Option<String>;
    /// Answer of `GET /api/v1/<path>`; `None` = no such resource.
    fn api<'a>(&'a self, path: &'a str) -> catchwater_runtime::Fut<'a, Option<serde_json::Value>>;
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
pub async fn serve(listener: TcpListener, view: Arc<dyn View>, mut stopped: Stopped) {
    let (connections, permits) = (Tasks::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
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
        let view = Arc::clone(&view);
        connections.spawn("http.connection", async move {
            let _permit = permit;
            let service = service_fn(move |r| answer(Arc::clone(&view), r));
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_buf_size(HEADER_BYTES_MAX);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(view: Arc<dyn View>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Ok(reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET here\n".into()));
    }
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/livez" => reply(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".into()),
        "/readyz" => match view.not_ready() {
            None => reply(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".into()),
            Some(why) => reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", format!("{why}\n")),
        },
        "/metrics" => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            reply(StatusCode::OK, kind, view.metrics())
        }
        _ => match path.strip_prefix("/api/v1/") {
            Some(rest) => match view.api(rest).await {
                Some(value) => reply(StatusCode::OK, "application/json", format!("{value}\n")),
                None => reply(StatusCode::NOT_FOUND, "application/json", "{\"error\":\"not found\"}\n".into()),
            },
            None => reply(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n".into()),
        },
    })
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// `GET http://<address>/api/v1/<path>` for the command line; `None` = 404.
pub async fn get(address: &str, path: &str) -> Result<Option<serde_json::Value>, Failure> {
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
        let request = Request::get(format!("/api/v1/{path}"))
            .header(hyper::header::HOST, address)
            .body(Full::<Bytes>::default())
            .map_err(|e| failed(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), 64 << 20).collect().await.map_err(|e| failed(e.to_string()))?;
        drop(driver);
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        serde_json::from_slice(&body.to_bytes()).map(Some).map_err(|e| failed(format!("{status}: {e}")))
    };
    match catchwater_runtime::time::timeout(Duration::from_secs(10), ask).await {
        Ok(answer) => answer,
        Err(_) => Err(failed("no answer within 10 s".into())),
    }
}

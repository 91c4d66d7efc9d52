//! One connection to one broker, made when first needed and thrown away at the first doubt.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use catchwater_protocol::api::{ApiVersionsRequest, ApiVersionsResponse};
use catchwater_protocol::frame::{self, Limits};
use catchwater_protocol::{Message, Reader, Request, Segments, Str, header};
use catchwater_runtime::net::{AsyncReadExt, AsyncWriteExt, TcpStream};
use catchwater_runtime::{sync, time};

use super::{Options, RemoteError};

/// Piece in which a reply is read, so that its length alone reserves nothing.
const READ_PIECE_BYTES: usize = 64 * 1024;
/// Kafka's answer to an ApiVersions version it does not know: the body is v0 with this code.
const UNSUPPORTED_VERSION: i16 = 35;

pub(super) struct Connection {
    address: String,
    client_id: String,
    reply_bytes_max: usize,
    /// Taken out while a request is in flight, so that a dropped call leaves no half-read stream behind.
    link: sync::Mutex<Option<Link>>,
}

struct Link {
    stream: TcpStream,
    versions: HashMap<i16, (i16, i16)>,
    correlation: i32,
}

impl Connection {
    pub fn new(address: String, options: &Options) -> Connection {
        Connection {
            address,
            client_id: options.client_id.clone(),
            reply_bytes_max: options.reply_bytes_max,
            link: sync::Mutex::new(None),
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// One request and its reply, at the highest version both sides speak and `max_version` allows.
    pub async fn call<R: Request>(
        &self,
        max_version: i16,
        limit: Duration,
        make: impl Fn(i16) -> R,
    ) -> Result<(i16, R::Response), RemoteError> {
        let work = async {
            let mut slot = self.link.lock().await;
            let mut link = self.take(&mut slot).await?;
            let version = match self.version::<R>(&link, max_version) {
                Ok(version) => version,
                Err(e) => {
                    *slot = Some(link);
                    return Err(e);
                }
            };
            let request = make(version);
            let reply = self.exchange(&mut link, &request, version).await?;
            *slot = Some(link);
            Ok((version, reply))
        };
        time::timeout(limit, work).await.map_err(|_| self.timed_out(R::NAME, limit))?
    }

    /// Sends a request that has no reply (Produce with acks = 0).
    pub async fn send<R: Request>(&self, limit: Duration, make: impl Fn(i16) -> R) -> Result<(), RemoteError> {
        let work = async {
            let mut slot = self.link.lock().await;
            let mut link = self.take(&mut slot).await?;
            let version = self.version::<R>(&link, R::MAX)?;
            self.write(&mut link, &make(version), version).await?;
            *slot = Some(link);
            Ok(())
        };
        time::timeout(limit, work).await.map_err(|_| self.timed_out(R::NAME, limit))?
    }

    fn timed_out(&self, api: &'static str, limit: Duration) -> RemoteError {
        RemoteError::TimedOut { api, address: self.address.clone(), limit }
    }

    fn version<R: Request>(&self, link: &Link, max_version: i16) -> Result<i16, RemoteError> {
        let theirs = link.versions.get(&R::KEY).copied();
        let ours = (R::MIN, R::MAX.min(max_version));
        match theirs {
            Some((min, max)) if max.min(ours.1) >= min.max(ours.0) => Ok(max.min(ours.1)),
            _ => Err(RemoteError::Unsupported { api: R::NAME, address: self.address.clone(), ours, theirs }),
        }
    }

    async fn take(&self, slot: &mut Option<Link>) -> Result<Link, RemoteError> {
        if let Some(link) = slot.take() {
            return Ok(link);
        }
        let refused = |source| RemoteError::Connect { address: self.address.clone(), source };
        let stream = TcpStream::connect(&self.address).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let mut link = Link { stream, versions: HashMap::new(), correlation: 0 };
        let reply = self.api_versions(&mut link).await?;
        if reply.error_code != 0 {
            return Err(RemoteError::refused(ApiVersionsRequest::NAME, reply.error_code, None));
        }
        link.versions = reply.api_keys.iter().map(|k| (k.api_key, (k.min_version, k.max_version))).collect();
        Ok(link)
    }

    /// Our newest version first; an older broker answers with a v0 body, code 35 and what it speaks (KIP-511).
    async fn api_versions(&self, link: &mut Link) -> Result<ApiVersionsResponse, RemoteError> {
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("catchwater"),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
        };
        let mut version = ApiVersionsRequest::MAX;
        loop {
            self.write(link, &request, version).await?;
            let frame = self.read(link, ApiVersionsRequest::NAME).await?;
            let reply = self.reply::<ApiVersionsRequest>(link, frame.clone(), version);
            match reply {
                Ok(reply) if reply.error_code != UNSUPPORTED_VERSION => return Ok(reply),
                Ok(_) | Err(RemoteError::Decode { .. }) if version > 0 => {
                    let old = self.reply::<ApiVersionsRequest>(link, frame, 0)?;
                    let theirs = old.api_keys.iter().find(|k| k.api_key == ApiVersionsRequest::KEY);
                    version = theirs.map_or(0, |k| k.max_version).clamp(0, version - 1);
                }
                reply => return reply,
            }
        }
    }

    async fn exchange<R: Request>(
        &self,
        link: &mut Link,
        request: &R,
        version: i16,
    ) -> Result<R::Response, RemoteError> {
        self.write(link, request, version).await?;
        let frame = self.read(link, R::NAME).await?;
        self.reply::<R>(link, frame, version)
    }

    fn reply<R: Request>(&self, link: &Link, frame: Bytes, version: i16) -> Result<R::Response, RemoteError> {
        let (api, address) = (R::NAME, self.address.clone());
        let decoded = (|| {
            let mut reader = Reader::new(frame);
            let flexible = header::response_is_flexible(R::KEY, version);
            let correlation = header::decode_response(&mut reader, flexible)?;
            if correlation != link.correlation {
                return Ok(None);
            }
            R::Response::decode(&mut reader, version).map(Some)
        })();
        match decoded {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(RemoteError::Correlation { api, address }),
            Err(source) => Err(RemoteError::Decode { api, address, source }),
        }
    }

    async fn write<R: Request>(&self, link: &mut Link, request: &R, version: i16) -> Result<(), RemoteError> {
        let api = R::NAME;
        link.correlation = link.correlation.wrapping_add(1);
        let segments: Segments = frame::request(request, version, link.correlation, Some(&self.client_id))
            .map_err(|source| RemoteError::Encode { api, version, source })?;
        let sent = async {
            for piece in segments.pieces() {
                link.stream.write_all(piece).await?;
            }
            link.stream.flush().await
        };
        sent.await.map_err(|source| RemoteError::Io { api, address: self.address.clone(), source })
    }

    async fn read(&self, link: &mut Link, api: &'static str) -> Result<Bytes, RemoteError> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                RemoteError::Closed { api, address: self.address.clone() }
            }
            _ => RemoteError::Io { api, address: self.address.clone(), source },
        };
        let mut prefix = [0; frame::LENGTH_BYTES];
        link.stream.read_exact(&mut prefix).await.map_err(failed)?;
        let len = Limits::response(self.reply_bytes_max).length(prefix).map_err(|source| RemoteError::Frame {
            api,
            address: self.address.clone(),
            source,
        })?;
        let mut body = BytesMut::new();
        while body.len() < len {
            let start = body.len();
            body.resize(start + (len - start).min(READ_PIECE_BYTES), 0);
            link.stream.read_exact(&mut body[start..]).await.map_err(failed)?;
        }
        Ok(body.freeze())
    }
}

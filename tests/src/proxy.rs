//! A TCP proxy before one server that cuts all its connections after so many bytes, in the middle of whatever they are:
//! the last bytes of a message may have got through, or its first ones only.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Default)]
struct Shared {
    /// Bytes that still go through, both ways together, before all is cut.
    left: Option<u64>,
    /// Both ends of the connections of now.
    open: Vec<TcpStream>,
}

pub struct Proxy {
    pub at: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    cuts: Arc<AtomicU64>,
}

fn lock(of: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    of.lock().unwrap_or_else(|e| e.into_inner())
}

impl Shared {
    fn cut(&mut self) {
        self.left = None;
        for end in self.open.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Proxy {
    /// Lives as long as the test's process.
    pub fn start(server: &str) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let at = listener.local_addr()?;
        let (shared, cuts) = (Arc::new(Mutex::new(Shared::default())), Arc::new(AtomicU64::new(0)));
        let (all, counter, server) = (Arc::clone(&shared), Arc::clone(&cuts), server.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is down: the client's connection ends.
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
                let ends = [(client.try_clone(), upstream.try_clone()), (upstream.try_clone(), client.try_clone())];
                lock(&all).open.extend([client, upstream]);
                for (from, to) in ends {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    let (all, counter) = (Arc::clone(&all), Arc::clone(&counter));
                    std::thread::spawn(move || pass(from, to, &all, &counter));
                }
            }
        });
        Ok(Proxy { at, shared, cuts })
    }

    /// The URL with this proxy in place of the server.
    pub fn before(url: &str) -> Result<(Proxy, String)> {
        let (head, rest) = url.split_once('@').context("a URL with a user")?;
        let (server, path) = rest.split_once('/').context("a URL with a database")?;
        let proxy = Proxy::start(server)?;
        let url = format!("{head}@{}/{path}", proxy.at);
        Ok((proxy, url))
    }

    /// Cuts everything once so many more bytes went through.
    pub fn cut_after(&self, bytes: u64) {
        lock(&self.shared).left = Some(bytes);
    }

    /// No cut is due any more.
    pub fn calm(&self) {
        lock(&self.shared).left = None;
    }

    /// Cuts that struck a connection.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, shared: &Mutex<Shared>, cuts: &AtomicU64) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let Some(chunk) = buffer.get(..n) else { break };
        let mut all = lock(shared);
        let through = match all.left {
            Some(left) if left < n as u64 => left as usize,
            Some(left) => {
                all.left = Some(left - n as u64);
                n
            }
            None => n,
        };
        if through < n {
            let _ = to.write_all(chunk.get(..through).unwrap_or_default());
            all.cut();
            cuts.fetch_add(1, Ordering::Relaxed);
            return;
        }
        drop(all);
        if to.write_all(chunk).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

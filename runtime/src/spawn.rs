//! Tasks with a name, an owner and an end. No detached tasks: a [`Tasks`] aborts what it still owns when dropped.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;
use tokio::task::JoinHandle;

#[cfg(sim)]
use crate::sim::{start, start_blocking};
#[cfg(not(sim))]
use tokio::{spawn as start, task::spawn_blocking as start_blocking};

/// The tasks of one owner.
#[derive(Default)]
pub struct Tasks {
    running: Mutex<Vec<(String, JoinHandle<()>)>>,
}

/// How a task ended that was waited for.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Done,
    Panicked(String),
    /// Still running at the deadline; aborted now.
    Late,
}

/// One task whose owner wants its end; aborts it when dropped.
#[must_use]
pub struct Task<T> {
    name: String,
    handle: JoinHandle<T>,
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl<T> Task<T> {
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
    /// As [`Task::join`], without giving the task up.
    pub async fn result(&mut self) -> Result<T, String> {
        (&mut self.handle).await.map_err(panic_text)
    }
    /// Waits for the end; `Err` carries the panic's text (or "cancelled").
    pub async fn join(mut self) -> Result<T, String> {
        (&mut self.handle).await.map_err(panic_text)
    }
}

/// Starts a task whose end the caller will wait for.
pub fn spawn<T: Send + 'static>(name: impl Into<String>, future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    Task { name: name.into(), handle: start(future) }
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task owned by this set; finished ones are forgotten on the way.
    pub fn spawn(&self, name: impl Into<String>, future: impl Future<Output = ()> + Send + 'static) {
        let handle = start(future);
        let mut running = self.running.lock().unwrap_or_else(|e| e.into_inner());
        running.retain(|(_, h)| !h.is_finished());
        running.push((name.into(), handle));
    }

    pub fn len(&self) -> usize {
        let mut running = self.running.lock().unwrap_or_else(|e| e.into_inner());
        running.retain(|(_, h)| !h.is_finished());
        running.len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits at most `limit` for all; returns those that did not end well, by name.
    pub async fn join(&self, limit: Duration) -> Vec<(String, End)> {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(|e| e.into_inner()));
        let deadline = tokio::time::Instant::now() + limit;
        let mut bad = Vec::new();
        for (name, mut handle) in running {
            match tokio::time::timeout_at(deadline, &mut handle).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => bad.push((name, End::Panicked(panic_text(e)))),
                Err(_) => {
                    handle.abort();
                    bad.push((name, End::Late));
                }
            }
        }
        bad
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for (_, handle) in self.running.get_mut().unwrap_or_else(|e| e.into_inner()) {
            handle.abort();
        }
    }
}

fn panic_text(e: tokio::task::JoinError) -> String {
    match e.try_into_panic() {
        Ok(p) => p
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| p.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic".into()),
        Err(_) => "cancelled".into(),
    }
}

/// Runs blocking work on tokio's blocking pool and waits for it. Dropping the future does not stop the work.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    start_blocking(work).await.map_err(panic_text)
}

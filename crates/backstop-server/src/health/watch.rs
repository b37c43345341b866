//! The thread that gathers, each minute and on demand.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::gather;
use crate::server::Server;

/// Time from one gathering to the next, unless somebody wants one.
const INTERVAL: Duration = Duration::from_secs(60);
/// At most so much of the time is spent with gathering unasked: one part in this.
const SHARE: u32 = 20;

/// The running thread. Dropping it ends it soon, without waiting.
#[derive(Debug)]
pub struct HealthWatch {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl HealthWatch {
    /// Starts to gather.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(server: Arc<Server>) -> io::Result<Self> {
        let own = Arc::clone(&server);
        let thread = Builder::new()
            .name("health".to_owned())
            .spawn(move || run(&own))?;
        Ok(Self {
            server,
            thread: Some(thread),
        })
    }

    /// Ends it and waits for that, at most for a gathering. Blocking.
    pub fn stop(mut self) {
        let thread = self.thread.take();
        drop(self);
        if let Some(thread) = thread {
            // It contains its panics.
            let _ = thread.join();
        }
    }
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        let health = self.server.health();
        health.progress.lock().stops = true;
        health.moved.notify_all();
    }
}

fn run(server: &Arc<Server>) {
    let health = server.health();
    loop {
        let begin = Instant::now();
        let is_asked = {
            let mut progress = health.progress.lock();
            progress.begun = progress.begun.saturating_add(1);
            std::mem::take(&mut progress.is_asked)
        };
        if catch_unwind(AssertUnwindSafe(|| gather::gather(server, is_asked))).is_err() {
            tracing::error!("a look at the health of the server is lost to a fault of the program");
        }
        let next = begin + INTERVAL.max(begin.elapsed().saturating_mul(SHARE));
        let mut progress = health.progress.lock();
        progress.done = progress.begun;
        health.moved.notify_all();
        while progress.wanted <= progress.begun && !progress.stops {
            if health.moved.wait_until(&mut progress, next).timed_out() {
                break;
            }
        }
        if progress.stops {
            drop(progress);
            health.finish();
            return;
        }
    }
}

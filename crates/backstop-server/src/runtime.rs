//! The two asynchronous runtimes of the server.
//!
//! The *control* runtime accepts connections and answers REST calls; the *data* runtime drives upgraded backup and
//! reader sessions and task workers. Neither may ever run blocking work on its async threads: that goes through
//! `spawn_blocking`, whose pools are bounded here, so that a flood of slow requests cannot start thousands of threads.

use std::io;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads for blocking work of REST calls. Calls beyond this number wait.
const CONTROL_BLOCKING_THREADS: usize = 32;
/// Threads for blocking work of sessions and task workers.
const DATA_BLOCKING_THREADS: usize = 128;

/// Owner of both runtimes. Dropping it stops them without waiting, so it may be dropped inside another runtime.
#[derive(Debug)]
pub struct Runtimes {
    control: Option<Runtime>,
    data: Option<Runtime>,
}

/// Handles of both runtimes, for code that starts work on them.
#[derive(Debug, Clone)]
pub struct RuntimeHandles {
    /// Listener and REST calls.
    pub control: Handle,
    /// Upgraded sessions and task workers.
    pub data: Handle,
}

impl Runtimes {
    /// Starts both runtimes.
    ///
    /// # Errors
    /// When the system refuses threads.
    pub fn start() -> io::Result<Self> {
        crate::memory::share_one_heap();
        let cores = available_parallelism().map_or(2, usize::from);
        let control = build("control", 2, CONTROL_BLOCKING_THREADS)?;
        let data = build("data", cores.max(2), DATA_BLOCKING_THREADS)?;
        Ok(Self {
            control: Some(control),
            data: Some(data),
        })
    }

    /// Handles for starting work, `None` once the runtimes have been stopped.
    pub fn handles(&self) -> Option<RuntimeHandles> {
        Some(RuntimeHandles {
            control: self.control.as_ref()?.handle().clone(),
            data: self.data.as_ref()?.handle().clone(),
        })
    }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        for runtime in [self.control.take(), self.data.take()]
            .into_iter()
            .flatten()
        {
            runtime.shutdown_background();
        }
    }
}

fn build(name: &'static str, workers: usize, blocking: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name(name)
        .worker_threads(workers)
        .max_blocking_threads(blocking)
        .thread_keep_alive(Duration::from_secs(10))
        .enable_all()
        .build()
}

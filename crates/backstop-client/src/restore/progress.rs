//! Progress of a restore: figures for those who show them, throttled lines for the log.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::activity::{Activity, Progress};
use crate::backup::report::{duration, milliseconds, rate, size};
use crate::error::Result;
use crate::reader::ChunkSource;

/// How often progress is told to the receiver of progress figures.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// When the first line is logged; then after twice the time each, up to the longest interval.
const FIRST_LINE: Duration = Duration::from_secs(5);

const LONGEST_LINE_INTERVAL: Duration = Duration::from_secs(60);

/// Tells the progress of a restore while it runs.
pub(super) struct ProgressReport<'a> {
    activity: &'a dyn Activity,
    archive: &'a str,
    total: Option<u64>,
    processed: Arc<AtomicU64>,
    source: &'a ChunkSource,
}

impl<'a> ProgressReport<'a> {
    pub fn new(
        activity: &'a dyn Activity,
        archive: &'a str,
        total: Option<u64>,
        processed: Arc<AtomicU64>,
        source: &'a ChunkSource,
    ) -> Self {
        Self {
            activity,
            archive,
            total,
            processed,
            source,
        }
    }

    /// Awaits `work`, telling progress meanwhile and a summary after success.
    pub async fn during<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        let mut interval = FIRST_LINE;
        let mut next_line = FIRST_LINE;
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => {
                    let value = result?;
                    let done = self.progress();
                    self.activity.progress(&done);
                    self.activity.info(&format!(
                        "restore complete ({} processed in {}, average {}/s)",
                        size(done.processed),
                        duration(started.elapsed()),
                        size(rate(done.processed, milliseconds(started))),
                    ));
                    return Ok(value);
                }
                _ = ticks.tick() => {
                    let now = self.progress();
                    self.activity.progress(&now);
                    if started.elapsed() >= next_line {
                        self.activity.info(&progress_line(&now, started));
                        interval = (interval * 2).min(LONGEST_LINE_INTERVAL);
                        next_line += interval;
                    }
                }
            }
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            archive: self.archive.to_owned(),
            processed: self.processed.load(Ordering::Relaxed),
            total: self.total,
            transferred: self.source.transferred(),
        }
    }
}

fn progress_line(now: &Progress, started: Instant) -> String {
    let (elapsed, speed) = (
        duration(started.elapsed()),
        size(rate(now.processed, milliseconds(started))),
    );
    match now.total {
        Some(total) if total > 0 => {
            let percent = u128::from(now.processed) * 100 / u128::from(total);
            format!(
                "progress {percent}% ({} of {} in {elapsed}, {speed}/s)",
                size(now.processed),
                size(total)
            )
        }
        _ => format!("processed {} in {elapsed}, {speed}/s", size(now.processed)),
    }
}

//! The lines that users and their scripts know from a backup.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use backstop_types::ByteSize;

use super::chunk_stage::Counters;
use super::request::ArchiveSummary;
use crate::activity::{Activity, Progress};
use crate::archive::CreateSummary;

/// How often progress is told to the receiver of progress figures.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How often a progress line is logged.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// From this size on an incremental backup is worth a line.
const INCREMENTAL_FROM: u64 = 1 << 20;

/// A size for humans.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::binary(bytes).to_string()
}

pub(crate) fn milliseconds(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A time span for humans: `1h 2m 3.5s`, parts that are zero left out.
pub(crate) fn duration(span: Duration) -> String {
    let (mut text, seconds) = (String::new(), span.as_secs());
    for (count, unit) in [
        (seconds / 86400, 'd'),
        (seconds / 3600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
    ] {
        if count > 0 {
            text.push_str(&format!("{count}{unit} "));
        }
    }
    let rest = (span - Duration::from_secs(seconds / 60 * 60)).as_secs_f64();
    if rest >= 0.1 {
        text.push_str(&format!("{}s", (rest * 10.0).floor() / 10.0));
    } else if text.is_empty() {
        text.push_str("<0.1s");
    }
    text.trim_end().to_owned()
}

/// Bytes per second.
pub(crate) fn rate(bytes: u64, milliseconds: u64) -> u64 {
    let rate = u128::from(bytes) * 1000 / u128::from(milliseconds.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The name of an archive without the suffix of its index.
fn short_name(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(short, _)| short)
}

/// What was done for an archive.
pub(crate) fn archive_lines(summary: &ArchiveSummary) -> Vec<String> {
    let archive = short_name(&summary.name);
    let mut lines = Vec::new();
    if summary.injected > 0 {
        lines.push(format!(
            "{archive}: reused {} from previous snapshot for unchanged files ({} chunks)",
            size(summary.injected),
            summary.injected_chunks
        ));
    }
    lines.push(format!(
        "{archive}: had to backup {} of {} (compressed {}) in {:.2} s (average {}/s)",
        size(summary.uploaded),
        size(summary.size),
        size(summary.compressed),
        summary.milliseconds as f64 / 1000.0,
        size(rate(summary.uploaded, summary.milliseconds)),
    ));
    if summary.size > INCREMENTAL_FROM && summary.reused > 0 {
        let percent = summary.reused as f64 * 100.0 / summary.size as f64;
        lines.push(format!(
            "{archive}: backup was done incrementally, reused {} ({percent:.1}%)",
            size(summary.reused)
        ));
    }
    lines
}

/// What a metadata comparison found.
pub(crate) fn change_detection_lines(summary: &CreateSummary) -> Vec<String> {
    vec![
        "Change detection summary:".to_owned(),
        format!(
            " - {} total files ({} hardlinks)",
            summary.files, summary.hardlinks
        ),
        format!(
            " - {} unchanged, reusable files with {} data",
            summary.reused_files,
            size(summary.reused_bytes)
        ),
        format!(
            " - {} changed or non-reusable files with {} data",
            summary.encoded_files,
            size(summary.encoded_bytes)
        ),
        format!(
            " - {} padding in {} partially reused chunks",
            size(summary.padding_bytes),
            summary.partial_chunks
        ),
    ]
}

/// Tells the progress of an archive while it is uploaded.
pub(crate) struct Ticker<'a> {
    activity: &'a dyn Activity,
    archive: &'a str,
    total: Option<u64>,
    streams: Vec<Arc<Counters>>,
}

impl<'a> Ticker<'a> {
    pub fn new(
        activity: &'a dyn Activity,
        archive: &'a str,
        total: Option<u64>,
        streams: Vec<Arc<Counters>>,
    ) -> Self {
        Self {
            activity,
            archive,
            total,
            streams,
        }
    }

    /// Awaits `work`, telling progress meanwhile.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        let mut lines = tokio::time::interval(LINE_INTERVAL);
        lines.tick().await;
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => {
                    self.activity.progress(&self.progress());
                    return result;
                }
                _ = progress.tick() => self.activity.progress(&self.progress()),
                _ = lines.tick() => {
                    let now = self.progress();
                    self.activity.info(&format!(
                        "processed {} in {}, uploaded {}",
                        size(now.processed),
                        duration(started.elapsed()),
                        size(now.transferred),
                    ));
                }
            }
        }
    }

    fn progress(&self) -> Progress {
        let sum =
            |counter: fn(&Counters) -> u64| self.streams.iter().map(|stream| counter(stream)).sum();
        Progress {
            archive: self.archive.to_owned(),
            processed: sum(|stream| stream.processed.load(Ordering::Relaxed)),
            total: self.total,
            transferred: sum(|stream| stream.uploaded.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_summary_has_the_shape_that_scripts_look_for() {
        let summary = ArchiveSummary {
            name: "root.pxar.didx".to_owned(),
            size: 4 << 20,
            uploaded: 1 << 20,
            compressed: 512 << 10,
            reused: 3 << 20,
            milliseconds: 500,
            ..ArchiveSummary::default()
        };
        assert_eq!(
            archive_lines(&summary),
            [
                "root.pxar: had to backup 1 MiB of 4 MiB (compressed 512 KiB) in 0.50 s (average 2 MiB/s)",
                "root.pxar: backup was done incrementally, reused 3 MiB (75.0%)",
            ]
        );
    }

    #[test]
    fn chunks_taken_over_are_told_first() {
        let summary = ArchiveSummary {
            name: "a.ppxar.didx".to_owned(),
            size: 1 << 20,
            injected: 1 << 20,
            injected_chunks: 2,
            reused: 1 << 20,
            ..ArchiveSummary::default()
        };
        let lines = archive_lines(&summary);
        assert_eq!(
            lines[0],
            "a.ppxar: reused 1 MiB from previous snapshot for unchanged files (2 chunks)"
        );
        assert_eq!(
            lines.len(),
            2,
            "exactly 1 MiB is not worth the incremental line"
        );
    }

    #[test]
    fn durations_leave_out_what_is_zero() {
        for (seconds, text) in [
            (0.01, "<0.1s"),
            (1.56, "1.5s"),
            (60.0, "1m"),
            (3723.25, "1h 2m 3.2s"),
            (86400.0, "1d"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }
}

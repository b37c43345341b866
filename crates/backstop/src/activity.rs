//! How the person at the terminal sees what the library does: log lines on standard error, and
//! progress bars if standard error is a terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::Mutex;

use backstop_client::activity::{Activity, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{self, size};

/// Which lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// None.
    Off,
    /// Failures.
    Error,
    /// And what should be known.
    Warn,
    /// And what is done.
    Info,
    /// And details.
    Debug,
}

impl Level {
    /// The level that the variable asks for; unknown words mean the usual one.
    pub fn from_variable(name: &str) -> Self {
        match std::env::var(name)
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "off" => Self::Off,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "debug" | "trace" => Self::Debug,
            _ => Self::Info,
        }
    }
}

/// Log lines and progress bars.
pub struct TerminalActivity {
    level: Level,
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    archives: Mutex<BTreeMap<String, ProgressBar>>,
}

impl TerminalActivity {
    /// Bars only if standard error is a terminal, lines as `PBS_LOG` says.
    pub fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(|| Bars {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(4)),
            archives: Mutex::new(BTreeMap::new()),
        });
        Self {
            level: Level::from_variable("PBS_LOG"),
            bars,
        }
    }

    fn line(&self, level: Level, line: &str) {
        if level > self.level {
            return;
        }
        match &self.bars {
            Some(bars) => bars.all.suspend(|| output::err(&format!("{line}\n"))),
            None => output::err(&format!("{line}\n")),
        }
    }

    /// Takes the bars away, before the last lines are printed.
    pub fn finish(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.all.clear();
        }
    }
}

impl Activity for TerminalActivity {
    fn info(&self, line: &str) {
        self.line(Level::Info, line);
    }

    fn warn(&self, line: &str) {
        self.line(Level::Warn, line);
    }

    fn debug(&self, line: &str) {
        self.line(Level::Debug, line);
    }

    fn progress(&self, progress: &Progress) {
        let Some(bars) = &self.bars else {
            return;
        };
        let Ok(mut archives) = bars.archives.lock() else {
            return;
        };
        let bar = archives
            .entry(progress.archive.clone())
            .or_insert_with(|| bars.all.add(new_bar(&progress.archive, progress.total)));
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_position(progress.processed);
        bar.set_message(format!("sent {}", size::whole_bytes(progress.transferred)));
        if progress
            .total
            .is_some_and(|total| progress.processed >= total)
        {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(archive: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => {
            "{prefix} {bar:30} {percent}% {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {msg}"
        }
        None => "{prefix} {spinner} {binary_bytes}, {binary_bytes_per_sec}, {msg}",
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    bar.with_style(style).with_prefix(archive.to_string())
}

//! What was measured over days, months and years: the histories behind `/nodes/{node}/rrd`,
//! `/admin/datastore/{store}/rrd` and the estimate of the day when a datastore is full.
//!
//! Each object (the host, a datastore) has one file, `docs/formats/rrd.md`; what came since it was written stands in a
//! journal, so that neither a restart nor a crash loses anything. The files of a stock server, which lie beside them,
//! are never touched.

mod file;
mod journal;
mod ring;
mod series;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstop_datastore::ownership;
use parking_lot::Mutex;

pub use journal::Measured;
pub use ring::Consolidation;

use file::Histories;
use journal::Journal;

/// How often the files are written.
const COMMIT: Duration = Duration::from_secs(30 * 60);
/// Most steps from the first value of an extract to its last.
const MAX_STEPS: i64 = 1439;
/// Name of an object's file in its directory. A stock server keeps one file for each value there.
const FILE: &str = "backstop.history";

/// A stretch of time that ends now, and the resolution in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeframe {
    /// Seconds.
    pub length: i64,
    /// Seconds from one value to the next.
    pub resolution: i64,
}

impl Timeframe {
    /// The last 30 days.
    pub const MONTH: Self = Self {
        length: 30 * 86_400,
        resolution: 1800,
    };

    /// A timeframe by the name that the API gives it.
    pub fn named(name: &str) -> Option<Self> {
        let (length, resolution) = match name {
            "hour" => (3600, 60),
            "day" => (86_400, 60),
            "week" => (7 * 86_400, 1800),
            "month" => return Some(Self::MONTH),
            "year" => (365 * 86_400, 6 * 3600),
            "decade" => (10 * 366 * 86_400, 7 * 86_400),
            _ => return None,
        };
        Some(Self { length, resolution })
    }
}

/// The values of an object over a timeframe.
#[derive(Debug, Clone, PartialEq)]
pub struct Extract {
    /// Time of the first value, seconds since 1970.
    pub start: i64,
    /// Seconds from one value to the next.
    pub resolution: i64,
    /// Values by name, all of the same length.
    pub values: BTreeMap<&'static str, Vec<Option<f64>>>,
}

/// How full a datastore was over a timeframe.
#[derive(Debug, Clone, PartialEq)]
pub struct Fullness {
    /// Time of the first value, seconds since 1970.
    pub start: i64,
    /// Seconds from one value to the next.
    pub resolution: i64,
    /// Shares in use, 0 to 1.
    pub shares: Vec<Option<f64>>,
}

impl Fullness {
    /// The shares that are known, with their times.
    pub fn points(&self) -> Vec<(i64, f64)> {
        let times = (0..).map(|step: i64| {
            let offset = step.saturating_mul(self.resolution);
            self.start.saturating_add(offset)
        });
        let known = times.zip(&self.shares);
        known
            .filter_map(|(time, share)| Some((time, (*share)?)))
            .collect()
    }
}

/// All histories. Share it between threads.
pub struct LongHistory {
    folder: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    objects: HashMap<String, Histories>,
    journal: Option<Journal>,
    committed: Instant,
}

impl fmt::Debug for LongHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongHistory")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl LongHistory {
    /// The histories in `folder`. Files are read when they are needed; what a journal holds is taken over. Never fails: a
    /// server without histories is better than none.
    pub fn open(folder: PathBuf) -> Self {
        let history = Self {
            inner: Mutex::new(Inner {
                objects: HashMap::new(),
                journal: None,
                committed: Instant::now(),
            }),
            folder,
        };
        if let Err(err) = history.start() {
            tracing::error!(%err, folder = ?history.folder, "what is measured will be lost at the next restart");
        }
        history
    }

    fn start(&self) -> io::Result<()> {
        ownership::create_dir_all(&self.folder, 0o755)?;
        let journal = Journal::open(self.folder.join("backstop.journal"))?;
        let mut inner = self.inner.lock();
        journal.replay(|time, object, values| self.put(&mut inner, time, object, values))?;
        inner.journal = Some(journal);
        self.write(&mut inner)
    }

    fn path(&self, object: &str) -> PathBuf {
        self.folder.join(object).join(FILE)
    }

    fn histories<'a>(&self, inner: &'a mut Inner, object: &str) -> &'a mut Histories {
        inner.objects.entry(object.to_owned()).or_insert_with(|| {
            let path = self.path(object);
            file::load(&path).unwrap_or_else(|err| {
                set_aside(&path, &err);
                Histories::new()
            })
        })
    }

    fn put(&self, inner: &mut Inner, time: i64, object: &str, values: &[Measured]) {
        let histories = self.histories(inner, object);
        for (name, kind, value) in values {
            let series = histories.entry((*name).to_owned()).or_default();
            series.put(time, *kind, *value);
        }
    }

    /// Adds what was measured of an object (`host`, `datastore/NAME`) at a time. Writes to the journal.
    pub fn record(&self, time: i64, object: &str, values: &[Measured]) {
        let mut inner = self.inner.lock();
        self.put(&mut inner, time, object, values);
        if let Some(journal) = &mut inner.journal
            && let Err(err) = journal.add(time, object, values)
        {
            tracing::warn!(%err, "unable to write what was measured to the journal");
        }
    }

    /// Writes the files if that was not done for half an hour.
    pub fn commit_if_due(&self) {
        let mut inner = self.inner.lock();
        if inner.committed.elapsed() < COMMIT {
            return;
        }
        if let Err(err) = self.write(&mut inner) {
            tracing::warn!(%err, "unable to write the history of what was measured");
        }
    }

    /// Writes the files.
    ///
    /// # Errors
    /// The disk fails; the journal keeps what is missing in them.
    pub fn commit(&self) -> io::Result<()> {
        self.write(&mut self.inner.lock())
    }

    fn write(&self, inner: &mut Inner) -> io::Result<()> {
        // Also after a failure, so that a full disk is not tried all the time.
        inner.committed = Instant::now();
        let measured = inner.objects.iter().filter(|(_, all)| !all.is_empty());
        for (object, histories) in measured {
            file::store(&self.path(object), histories)?;
        }
        match &mut inner.journal {
            Some(journal) => journal.clear(),
            None => Ok(()),
        }
    }

    /// How full a datastore was in the last 30 days; `None`: it was never measured.
    pub fn fullness(&self, datastore: &str, now: i64) -> Option<Fullness> {
        let extract = self.extract(
            &format!("datastore/{datastore}"),
            &["available", "used"],
            Timeframe::MONTH,
            Consolidation::Average,
            now,
        );
        let (used, available) = (
            extract.values.get("used")?,
            extract.values.get("available")?,
        );
        let share = |(used, available): (&Option<f64>, &Option<f64>)| {
            let (used, available) = ((*used)?, (*available)?);
            Some(used / (used + available)).filter(|share| share.is_finite())
        };
        Some(Fullness {
            start: extract.start,
            resolution: extract.resolution,
            shares: used.iter().zip(available).map(share).collect(),
        })
    }

    /// The values of an object over a timeframe that ends at `now`. Names that were never measured are left out.
    pub fn extract(
        &self,
        object: &str,
        names: &[&'static str],
        timeframe: Timeframe,
        consolidation: Consolidation,
        now: i64,
    ) -> Extract {
        // Whole steps back from now, as many as there are slots, so that the newest value is always the last one.
        let steps = (timeframe.length / timeframe.resolution.max(1)).min(MAX_STEPS);
        let start = now.saturating_sub(steps.saturating_mul(timeframe.resolution));
        let mut inner = self.inner.lock();
        let histories = self.histories(&mut inner, object);
        let values = names
            .iter()
            .filter_map(|name| {
                let series = histories.get(*name)?;
                let values = series.extract(consolidation, timeframe.resolution, start, now);
                Some((*name, values))
            })
            .collect();
        Extract {
            start,
            resolution: timeframe.resolution,
            values,
        }
    }
}

/// A damaged file is kept for whoever wants to look into it, and a new one is begun.
fn set_aside(path: &Path, err: &io::Error) {
    let aside = path.with_extension("damaged");
    let moved = std::fs::rename(path, &aside);
    tracing::error!(%err, ?aside, moved = moved.is_ok(), "a history begins anew");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::metrics::Kind;

    const NOW: i64 = 1_700_000_040;
    const HOUR: Timeframe = Timeframe {
        length: 3600,
        resolution: 60,
    };

    fn used(history: &LongHistory) -> Option<f64> {
        let extract = history.extract(
            "datastore/store1",
            &["used", "never-measured"],
            HOUR,
            Consolidation::Max,
            NOW,
        );
        assert_eq!((extract.start, extract.resolution), (NOW - 3600, 60));
        assert_eq!(extract.values.len(), 1);
        let used = &extract.values["used"];
        assert_eq!(used.len(), 61);
        *used.last().unwrap()
    }

    #[test]
    fn a_history_survives_a_restart_a_crash_and_damage() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("rrdb");
        let values = [("used", Kind::Gauge, 7.0)];
        let first = LongHistory::open(folder.clone());
        first.record(NOW, "datastore/store1", &values);
        assert_eq!(used(&first), Some(7.0));
        // not written, as after a crash: the journal has it
        drop(first);
        let second = LongHistory::open(folder.clone());
        assert_eq!(used(&second), Some(7.0));
        second.record(NOW + 10, "datastore/store1", &[("used", Kind::Gauge, 9.0)]);
        second.commit().unwrap();
        assert_eq!(
            std::fs::metadata(folder.join("backstop.journal"))
                .unwrap()
                .len(),
            0
        );
        let third = LongHistory::open(folder.clone());
        assert_eq!(used(&third), Some(9.0));
        let file = folder.join("datastore/store1").join(FILE);
        std::fs::write(&file, "damaged").unwrap();
        let fourth = LongHistory::open(folder);
        fourth.record(NOW, "datastore/store1", &values);
        assert_eq!(used(&fourth), Some(7.0));
        assert_eq!(
            std::fs::read(file.with_extension("damaged")).unwrap(),
            b"damaged"
        );
    }

    #[test]
    fn the_newest_value_is_the_last_of_every_timeframe() {
        let dir = tempfile::tempdir().unwrap();
        let history = LongHistory::open(dir.path().to_owned());
        history.record(NOW, "host", &[("cpu", Kind::Gauge, 0.5)]);
        let counts = ["hour", "day", "week", "month", "year", "decade"].map(|name| {
            let timeframe = Timeframe::named(name).unwrap();
            let cf = Consolidation::Average;
            let extract = history.extract("host", &["cpu"], timeframe, cf, NOW);
            let values = &extract.values["cpu"];
            assert_eq!(values.last(), Some(&Some(0.5)), "{name}");
            values.len()
        });
        assert_eq!(counts, [61, 1440, 337, 1440, 1440, 523]);
        assert_eq!(Timeframe::named("century"), None);
    }

    #[test]
    fn files_of_a_stock_server_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let stock = dir.path().join("datastore/store1/used");
        std::fs::create_dir_all(stock.parent().unwrap()).unwrap();
        std::fs::write(&stock, "stock").unwrap();
        std::fs::write(dir.path().join("rrd.journal"), "stock").unwrap();
        let history = LongHistory::open(dir.path().to_owned());
        history.record(NOW, "datastore/store1", &[("used", Kind::Gauge, 7.0)]);
        history.commit().unwrap();
        assert_eq!(std::fs::read(&stock).unwrap(), b"stock");
        assert_eq!(
            std::fs::read(dir.path().join("rrd.journal")).unwrap(),
            b"stock"
        );
    }
}

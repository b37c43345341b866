//! Which snapshots of a group a retention rule keeps.
//!
//! A pure function of times and marks: it removes nothing and knows no files. The periods are those of the local time zone,
//! as in stock servers, so that changing the zone can change what is kept.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How many snapshots to keep; unset options take no part. Without any, everything is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepOptions {
    /// The newest ones.
    pub last: Option<u64>,
    /// The newest of each of so many hours.
    pub hourly: Option<u64>,
    /// The newest of each of so many days.
    pub daily: Option<u64>,
    /// The newest of each of so many weeks, which start on Monday.
    pub weekly: Option<u64>,
    /// The newest of each of so many months.
    pub monthly: Option<u64>,
    /// The newest of each of so many years.
    pub yearly: Option<u64>,
}

impl KeepOptions {
    /// All rules with their numbers, in the order in which they choose.
    pub fn rules(&self) -> [(Rule, Option<u64>); 6] {
        [
            (Rule::Last, self.last),
            (Rule::Hourly, self.hourly),
            (Rule::Daily, self.daily),
            (Rule::Weekly, self.weekly),
            (Rule::Monthly, self.monthly),
            (Rule::Yearly, self.yearly),
        ]
    }

    /// Whether no option is set, so that everything is kept.
    pub fn keeps_all(&self) -> bool {
        *self == KeepOptions::default()
    }
}

/// A snapshot as the selection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// When it was started, in seconds since 1970.
    pub time: i64,
    /// Whether its backup was finished.
    pub finished: bool,
    /// Whether it is protected from removal.
    pub protected: bool,
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is kept by an option.
    Keep,
    /// It is the newest and unfinished: its backup may be running.
    KeepPartial,
    /// It is protected.
    Protected,
    /// It would go, but is locked.
    Locked,
    /// It goes.
    Remove,
}

impl Mark {
    /// Whether the snapshot stays.
    pub fn keeps(self) -> bool {
        self != Mark::Remove
    }

    /// The name that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Mark::Keep => "keep",
            Mark::KeepPartial => "keep-partial",
            Mark::Protected => "protected",
            Mark::Locked => "locked",
            Mark::Remove => "remove",
        }
    }
}

/// One of the options, as a rule that chooses snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The newest ones.
    Last,
    /// The newest of each hour.
    Hourly,
    /// The newest of each day.
    Daily,
    /// The newest of each week.
    Weekly,
    /// The newest of each month.
    Monthly,
    /// The newest of each year.
    Yearly,
}

impl Rule {
    /// The name of the option.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Last => "keep-last",
            Rule::Hourly => "keep-hourly",
            Rule::Daily => "keep-daily",
            Rule::Weekly => "keep-weekly",
            Rule::Monthly => "keep-monthly",
            Rule::Yearly => "keep-yearly",
        }
    }

    fn period(self) -> &'static str {
        match self {
            Rule::Last => "moment",
            Rule::Hourly => "hour",
            Rule::Daily => "day",
            Rule::Weekly => "week",
            Rule::Monthly => "month",
            Rule::Yearly => "year",
        }
    }
}

/// Why a snapshot stays or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No option is set, so everything stays.
    NoRules,
    /// It is protected.
    Protected,
    /// It is the newest and unfinished: its backup may be running.
    MayBeRunning,
    /// It is unfinished and not the newest.
    Unfinished,
    /// A rule has chosen it.
    Chosen {
        /// The rule.
        rule: Rule,
        /// As which one, from 1 for the newest.
        number: u64,
        /// How many the rule may choose.
        of: u64,
    },
    /// A rule has chosen a newer one of the same period.
    Superseded {
        /// The rule.
        rule: Rule,
    },
    /// No rule has chosen it.
    NotChosen,
    /// No rule has chosen it, but it is locked until this moment, in seconds since 1970.
    Locked {
        /// The moment.
        until: i64,
    },
}

impl Reason {
    /// The rule that keeps the snapshot, if one does.
    pub fn keeping_rule(self) -> Option<Rule> {
        match self {
            Reason::Chosen { rule, .. } => Some(rule),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoRules => f.write_str("no rules are set"),
            Reason::Protected => f.write_str("protected"),
            Reason::MayBeRunning => f.write_str("the newest, may be running"),
            Reason::Unfinished => f.write_str("unfinished"),
            Reason::Chosen { rule, number, of } => write!(f, "{} {number} of {of}", rule.as_str()),
            Reason::Superseded { rule } => {
                write!(
                    f,
                    "{} keeps a newer one of the {}",
                    rule.as_str(),
                    rule.period()
                )
            }
            Reason::NotChosen => f.write_str("no rule keeps it"),
            Reason::Locked { until } => match Timestamp::from_second(*until) {
                Ok(until) => write!(f, "retention lock until {until}"),
                Err(_) => f.write_str("retention lock"),
            },
        }
    }
}

/// What becomes of a snapshot, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of it.
    pub mark: Mark,
    /// Why.
    pub reason: Reason,
}

impl Verdict {
    const fn new(mark: Mark, reason: Reason) -> Self {
        Self { mark, reason }
    }

    /// What becomes of a snapshot that no rule keeps, but that is locked until this moment, in seconds since 1970.
    pub const fn locked(until: i64) -> Self {
        Self::new(Mark::Locked, Reason::Locked { until })
    }
}

/// Identifies a period among those of its kind.
type PeriodId = (i64, i8, i8, i8);

impl Rule {
    fn period_of(self, time: i64, zone: &TimeZone) -> PeriodId {
        if let Rule::Last = self {
            return (time, 0, 0, 0);
        }
        // Outside the years that the calendar knows, each snapshot is a period of its own.
        let Ok(timestamp) = Timestamp::from_second(time) else {
            return (time, -1, -1, -1);
        };
        let local = zone.to_datetime(timestamp);
        let year = i64::from(local.year());
        match self {
            Rule::Last => (time, 0, 0, 0),
            Rule::Hourly => (year, local.month(), local.day(), local.hour()),
            Rule::Daily => (year, local.month(), local.day(), 0),
            Rule::Weekly => {
                let week = local.date().iso_week_date();
                (week.year().into(), week.week(), 0, 0)
            }
            Rule::Monthly => (year, local.month(), 0, 0),
            Rule::Yearly => (year, 0, 0, 0),
        }
    }
}

/// Marks each candidate, in the order given, which does not matter. They are the snapshots of one group.
pub fn select(candidates: &[Candidate], keep: &KeepOptions, zone: &TimeZone) -> Vec<Mark> {
    let verdicts = explain(candidates, keep, zone);
    verdicts.into_iter().map(|verdict| verdict.mark).collect()
}

/// As [`select`], with the reason for each candidate.
pub fn explain(candidates: &[Candidate], keep: &KeepOptions, zone: &TimeZone) -> Vec<Verdict> {
    let mut newest_first: Vec<usize> = (0..candidates.len()).collect();
    newest_first.sort_by_key(|position| {
        candidates
            .get(*position)
            .map(|candidate| std::cmp::Reverse(candidate.time))
    });

    let mut verdicts: Vec<Option<Verdict>> = vec![None; candidates.len()];
    if keep.keeps_all() {
        verdicts.fill(Some(Verdict::new(Mark::Keep, Reason::NoRules)));
    } else {
        judge_unfinished(candidates, &newest_first, &mut verdicts);
    }
    for (rule, count) in keep.rules() {
        if let Some(count) = count {
            run_phase(candidates, &newest_first, &mut verdicts, rule, count, zone);
        }
    }
    candidates
        .iter()
        .zip(verdicts)
        .map(|(candidate, verdict)| match verdict {
            _ if candidate.protected => Verdict::new(Mark::Protected, Reason::Protected),
            Some(verdict) => verdict,
            None => Verdict::new(Mark::Remove, Reason::NotChosen),
        })
        .collect()
}

fn judge_unfinished(
    candidates: &[Candidate],
    newest_first: &[usize],
    verdicts: &mut [Option<Verdict>],
) {
    for (rank, position) in newest_first.iter().enumerate() {
        if let (Some(candidate), Some(verdict)) =
            (candidates.get(*position), verdicts.get_mut(*position))
            && !candidate.finished
        {
            *verdict = Some(if rank == 0 {
                Verdict::new(Mark::KeepPartial, Reason::MayBeRunning)
            } else {
                Verdict::new(Mark::Remove, Reason::Unfinished)
            });
        }
    }
}

/// One option: the newest of each of `count` periods that no earlier option has covered.
fn run_phase(
    candidates: &[Candidate],
    newest_first: &[usize],
    verdicts: &mut [Option<Verdict>],
    rule: Rule,
    count: u64,
    zone: &TimeZone,
) {
    let covered: HashSet<PeriodId> = candidates
        .iter()
        .zip(verdicts.iter())
        .filter(|(_, verdict)| verdict.is_some_and(|verdict| verdict.mark == Mark::Keep))
        .map(|(candidate, _)| rule.period_of(candidate.time, zone))
        .collect();
    let mut chosen = HashSet::new();
    for position in newest_first {
        let (Some(candidate), Some(verdict)) =
            (candidates.get(*position), verdicts.get_mut(*position))
        else {
            continue;
        };
        if verdict.is_some() {
            continue;
        }
        if candidate.protected {
            *verdict = Some(Verdict::new(Mark::Protected, Reason::Protected));
            continue;
        }
        let id = rule.period_of(candidate.time, zone);
        if covered.contains(&id) {
            continue;
        }
        let number = chosen.len() as u64;
        if chosen.contains(&id) {
            *verdict = Some(Verdict::new(Mark::Remove, Reason::Superseded { rule }));
        } else if number >= count {
            break;
        } else {
            chosen.insert(id);
            let reason = Reason::Chosen {
                rule,
                number: number + 1,
                of: count,
            };
            *verdict = Some(Verdict::new(Mark::Keep, reason));
        }
    }
}

#[cfg(test)]
mod tests;

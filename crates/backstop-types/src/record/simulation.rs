//! What a simulation of retention rules tells.

use backstop_calendar::simulator::{SimulatedBackup, Simulation};
use serde::Serialize;

/// A simulation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PruneSimulation {
    /// The days on which there was a backup, oldest first; absent for given backups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<PruneSimulationDay>,
    /// All backups, oldest first.
    pub backups: Vec<PruneSimulationItem>,
}

/// A day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PruneSimulationDay {
    /// Local date, as `2026-11-21`.
    pub date: String,
    /// How many backups are there at its end.
    pub kept: usize,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PruneSimulationItem {
    /// When it was made, in seconds since the epoch.
    pub backup_time: i64,
    /// Whether it is there in the end.
    pub keep: bool,
    /// The rule that keeps it, such as `keep-daily`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// Why it is kept, or why it was removed.
    pub reason: String,
    /// When it was removed, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<i64>,
}

impl From<&Simulation> for PruneSimulation {
    fn from(simulation: &Simulation) -> Self {
        let days = simulation.days.iter().map(|day| PruneSimulationDay {
            date: day.date.to_string(),
            kept: day.kept,
        });
        Self {
            days: days.collect(),
            backups: simulation
                .backups
                .iter()
                .map(PruneSimulationItem::from)
                .collect(),
        }
    }
}

impl From<&SimulatedBackup> for PruneSimulationItem {
    fn from(backup: &SimulatedBackup) -> Self {
        let reason = backup.verdict.reason;
        Self {
            backup_time: backup.time,
            keep: backup.verdict.mark.keeps(),
            rule: reason.keeping_rule().map(|rule| rule.as_str()),
            reason: reason.to_string(),
            removed_at: backup.removed_at,
        }
    }
}

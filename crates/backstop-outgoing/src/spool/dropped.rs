//! The count of what was dropped, for each lane and hour.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const HOUR: i64 = 3600;
/// For how many hours a count of its own is kept.
const KEPT: i64 = 48;

/// What was dropped so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dropped {
    /// How many items.
    pub count: u64,
    /// When the last one was.
    pub last: i64,
    /// Why the last one was.
    pub reason: String,
    /// What was dropped of each lane in the last two days.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lanes: BTreeMap<String, DroppedOfLane>,
}

/// What was dropped of a lane lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DroppedOfLane {
    /// When the last one was.
    pub last: i64,
    /// Why the last one was.
    pub reason: String,
    /// How many in each hour, by its number since the epoch.
    hours: BTreeMap<i64, u64>,
}

impl Dropped {
    pub(super) fn count(&mut self, lane: &str, reason: &str, now: i64) {
        self.count = self.count.saturating_add(1);
        self.last = now;
        reason.clone_into(&mut self.reason);
        let of_lane = self.lanes.entry(lane.to_owned()).or_default();
        of_lane.last = now;
        reason.clone_into(&mut of_lane.reason);
        let hour = now.div_euclid(HOUR);
        let count = of_lane.hours.entry(hour).or_default();
        *count = count.saturating_add(1);
        for lane in self.lanes.values_mut() {
            lane.hours
                .retain(|of, _| (0..KEPT).contains(&hour.saturating_sub(*of)));
        }
        self.lanes.retain(|_, lane| !lane.hours.is_empty());
    }
}

impl DroppedOfLane {
    /// How many were dropped after a moment of the last two days; up to an hour more.
    pub fn since(&self, moment: i64) -> u64 {
        let hours = self.hours.range(moment.div_euclid(HOUR)..);
        hours.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

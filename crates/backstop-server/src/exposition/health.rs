//! The checks of health, as they were made last. Nothing here has an opinion of its own.

use backstop_health::State;

use super::families::{ExpositionError, Families, number, seconds};
use crate::health::Checked;

/// A state as a number: the worse, the larger, but for the unknown.
const fn level(state: State) -> f64 {
    match state {
        State::Ok => 0.0,
        State::Warning => 1.0,
        State::Critical => 2.0,
        State::Unknown => 3.0,
    }
}

pub(super) fn add(checked: &Checked, families: &Families) -> Result<(), ExpositionError> {
    let states = families.gauges(
        "backstop_health_state",
        "State of a check: 0 ok, 1 warning, 2 critical, 3 unknown.",
        &["code", "object"],
    )?;
    let loud = families.gauges(
        "backstop_health_loud",
        "State of a check that calls for somebody: bad, and neither acknowledged nor expected. Absent otherwise.",
        &["code", "object"],
    )?;
    for check in &checked.checks {
        let finding = &check.finding;
        let labels = [finding.code.as_str(), finding.object.as_str()];
        let level = level(finding.state);
        states.show(&labels, Some(level))?;
        loud.show(&labels, check.is_loud().then_some(level))?;
    }
    let counts = families.gauges("backstop_health_checks", "Checks by state.", &["state"])?;
    for state in State::ALL {
        let count = checked
            .checks
            .iter()
            .filter(|check| check.finding.state == state);
        counts.show(&[state.as_str()], Some(number(count.count() as u64)))?;
    }
    families
        .gauges(
            "backstop_health_checked_timestamp_seconds",
            "When the checks were made last.",
            &[],
        )?
        .show(&[], (checked.at > 0).then_some(seconds(checked.at)))
}

//! `/backstop`: what stock servers do not have.

mod append_only;
pub mod certificate;
mod health;
pub mod heartbeats;
mod notifications;
mod remote_certificate;
pub mod retention_lock;

use backstop_calendar::CalendarEvent;
use backstop_calendar::simulator::simulate;
use backstop_types::config_schema::value;
use backstop_types::record::PruneSimulation;
use backstop_types::schema::{Property, Schema};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::admin::datastore::keep_options;
use super::admin::datastore::parameters::{
    KEEP_DAILY, KEEP_HOURLY, KEEP_LAST, KEEP_MONTHLY, KEEP_WEEKLY, KEEP_YEARLY,
};
use crate::http::{ApiError, Reply};
use crate::router::schema::INTEGER;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// How many days are simulated unless the caller says otherwise.
const DAYS: u32 = 28;
static DAYS_RANGE: Schema = Schema::integer(1, 3660);

const SIMULATION: &[Property] = &[
    Property::required("schedule", &value::CALENDAR_EVENT),
    KEEP_LAST,
    KEEP_HOURLY,
    KEEP_DAILY,
    KEEP_WEEKLY,
    KEEP_MONTHLY,
    KEEP_YEARLY,
    Property::optional("days", &DAYS_RANGE),
    Property::optional("base-time", &INTEGER),
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let mut endpoints = retention_lock::endpoints();
    endpoints.extend(append_only::endpoints());
    endpoints.extend(certificate::endpoints());
    endpoints.extend(health::endpoints());
    endpoints.extend(notifications::endpoints());
    endpoints.extend(heartbeats::endpoints());
    endpoints.extend(remote_certificate::endpoints());
    endpoints.push(Endpoint {
        method: Method::Get,
        path: "/backstop/prune-simulator",
        about: "Tells which backups of a schedule retention rules would keep.",
        params: SIMULATION,
        // A computation on nothing but its parameters, of bounded size.
        permission: Permission::Anybody,
        handler: Handler::blocking(prune_simulator),
    });
    endpoints
}

fn prune_simulator(_: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    Reply::data(&simulation(params, &TimeZone::system())?)
}

fn simulation(params: &Params, zone: &TimeZone) -> Result<PruneSimulation, ApiError> {
    let schedule: CalendarEvent = params.required_text("schedule")?.parse()?;
    let end = params.integer("base-time");
    let end = end.unwrap_or_else(|| Timestamp::now().as_second());
    let days = params
        .integer("days")
        .and_then(|days| u32::try_from(days).ok());
    let keep = keep_options(params)?;
    let simulation = simulate(&schedule, &keep, end, days.unwrap_or(DAYS), zone)?;
    Ok(PruneSimulation::from(&simulation))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use hyper::HeaderMap;

    use super::*;

    fn answer(query: &str) -> Result<PruneSimulation, ApiError> {
        let params = Params::of_request(SIMULATION, &[], Some(query), &HeaderMap::new(), None)?;
        simulation(&params, &TimeZone::UTC)
    }

    #[test]
    fn a_simulation_follows_its_parameters() {
        let answer =
            answer("schedule=6,18:00&keep-last=1&keep-daily=1&days=2&base-time=1767441600")
                .unwrap();
        let kept: Vec<i64> = answer
            .backups
            .iter()
            .filter(|backup| backup.keep)
            .map(|backup| backup.backup_time)
            .collect();
        assert_eq!(
            (answer.backups.len(), kept),
            (4, vec![1_767_376_800, 1_767_420_000])
        );
        let days: Vec<usize> = answer.days.iter().map(|day| day.kept).collect();
        assert_eq!(days, [1, 2, 2]);
    }

    #[test]
    fn parameters_are_checked() {
        for (query, text) in [
            (
                "keep-last=1",
                "'schedule': parameter is missing and it is not optional.",
            ),
            (
                "schedule=24:00",
                "'schedule': unable to parse calendar event at '24:00' - ",
            ),
            (
                "schedule=daily&keep-last=0",
                "'keep-last': value must have a minimum value of 1 (got 0)",
            ),
            (
                "schedule=daily&days=3661",
                "'days': value must have a maximum value of 3660 (got 3661)",
            ),
            (
                "schedule=*:*:*",
                "the schedule makes too many backups in 28 days",
            ),
        ] {
            let error = answer(query).unwrap_err().to_string();
            assert!(error.contains(text), "{query}: {error}");
        }
    }
}

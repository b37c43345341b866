//! Health: one list of checks, each with a stable code, a state, since when, why, and what to do.
//!
//! Everything here is a pure function of facts and a given moment: nothing reads a clock, a file or a network. Whoever shows,
//! counts or sends the state of the server takes it from this list and has no opinion of its own.
//!
//! ```text
//! facts ─► judge ─► findings ─► ledger ─► checks, and what has changed
//! ```
//!
//! [`judge`] knows what is wrong now; the [`Ledger`] remembers since when, who has acknowledged it, and what was expected in a
//! maintenance window. What is wrong never vanishes without a recovery, and is never muted.

mod absence;
mod audience;
mod backup;
mod cadence;
mod certificate;
mod check;
mod clock;
mod code;
mod collision;
mod configuration;
mod datastore;
mod delivery;
pub mod facts;
pub mod forecast;
mod gone;
mod job;
mod learnt;
mod ledger;
mod listing;
mod memory;
mod message;
mod moment;
mod number;
mod overall;
pub mod plugin;
mod remote;
mod settings;
mod span;
mod unreadable;
mod window;

pub use absence::Absences;
pub use check::{Acknowledgement, Check, Expected, Finding, Measure, Recovered, Scope};
pub use code::{Code, State};
pub use facts::Facts;
pub use learnt::Learnt;
pub use ledger::{Change, Held, Ledger, LedgerError, Observation, Reason};
pub use message::{Message, messages};
pub use moment::Moment;
pub use overall::{Counts, Overall};
pub use settings::{Every, Expectation, Place, Settings, SettingsError};
pub use span::{parse_span, span_text};
pub use window::{Span, Window};

/// All that is to be said of these facts, whether good or bad, in a fixed order.
pub fn judge(facts: &Facts, settings: &Settings, learnt: &Learnt, moment: &Moment) -> Vec<Finding> {
    let mut findings = Vec::new();
    configuration::judge(&facts.configuration, &mut findings);
    for job in &facts.jobs {
        job::judge(job, facts.started, learnt, moment, &mut findings);
    }
    let groups = facts.groups_by_datastore();
    for datastore in &facts.datastores {
        let own = groups.get(datastore.name.as_str());
        let own = own.map_or(&[][..], Vec::as_slice);
        datastore::judge(datastore, own, moment, &mut findings);
        listing::judge(datastore, facts.started, moment, &mut findings);
    }
    backup::judge(facts, settings, learnt, moment, &mut findings);
    for group in &facts.groups {
        unreadable::judge(group, moment, &mut findings);
    }
    gone::judge(&facts.gone, moment, &mut findings);
    collision::judge(facts, &mut findings);
    for certificate in &facts.certificates {
        certificate::judge(certificate, moment, &mut findings);
    }
    for remote in &facts.remotes {
        remote::judge(remote, moment, &mut findings);
    }
    clock::judge(&facts.clock, moment, &mut findings);
    for delivery in &facts.deliveries {
        delivery::judge(delivery, moment, &mut findings);
    }
    if let Some(audience) = &facts.audience {
        audience::judge(audience, moment, &mut findings);
    }
    if let Some(memory) = &facts.memory {
        memory::judge(memory, &mut findings);
    }
    findings
}

/// What was not looked at since the server started and does not call for anybody yet: it is among the checks, but no finding.
pub fn unseen(facts: &Facts, learnt: &Learnt, checks: &[Check], moment: &Moment) -> Vec<Check> {
    listing::unseen(facts, learnt, checks, moment)
}

#[cfg(test)]
mod tests;

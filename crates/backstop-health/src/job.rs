//! Jobs: failed, late, far too long, never ran.

use backstop_calendar::CalendarEvent;

use crate::facts::{JobFacts, Outcome, RunFacts};
use crate::number::{float, float_u};
use crate::{Code, Finding, Learnt, Moment, State, span_text};

/// The scheduler looks each minute, so that a job that has not begun after this time does not begin. Seconds.
const LATE: i64 = 10 * 60;
/// A job that is late for longer, and has missed its next turn as well, is critical. Seconds.
pub const VERY_LATE: i64 = 3600;
/// Runs that must be known before anything is said of how long they take.
const ENOUGH: usize = 3;
/// A run that takes so long is noticed even when nothing is known of how long it takes; also one that takes half a working day and
/// has missed two turns meanwhile. Seconds.
const UNUSUAL: i64 = 24 * 3600;
const UNUSUAL_MISSED: i64 = 6 * 3600;

pub fn judge(
    job: &JobFacts,
    started: i64,
    learnt: &Learnt,
    moment: &Moment,
    findings: &mut Vec<Finding>,
) {
    let object = job.object();
    findings.push(failed(job, &object, moment));
    findings.push(slow(job, &object, learnt, moment));
    if job.schedule.is_some() && job.unreadable.is_none() {
        let never_ran = job.last.is_none() && job.running.is_none();
        let (code, other, text) = match never_ran {
            true => (Code::JobNeverRan, Code::JobLate, "it has not run yet"),
            false => (Code::JobLate, Code::JobNeverRan, "it has run"),
        };
        let waited = |due: i64| {
            let here = moment.now.saturating_sub(due.max(started));
            (learnt.lateness(&object, due).unwrap_or(here), here)
        };
        findings.push(late(job, code, &object, waited, moment));
        findings.push(Finding::ok(other, &object, &job.scope, text));
    }
}

/// When it was due, if that has passed and it was not started.
pub fn due(job: &JobFacts, moment: &Moment) -> Option<i64> {
    let waits = !job.disabled && job.running.is_none() && job.unreadable.is_none();
    let schedule = job.schedule.as_ref().filter(|_| waits)?;
    let event: CalendarEvent = schedule.parse().ok()?;
    let due = event.next_after(job.reference, &moment.zone)?;
    (due <= moment.now).then_some(due)
}

/// The command that starts it.
fn run_command(job: &JobFacts) -> String {
    let id = &job.id;
    match job.kind {
        "gc" => format!("proxmox-backup-manager garbage-collection start {id}"),
        "sync" | "prune" | "verify" => format!("proxmox-backup-manager {}-job run {id}", job.kind),
        _ => format!("POST /api2/json/access/domains/{id}/sync"),
    }
}

fn failed(job: &JobFacts, object: &str, moment: &Moment) -> Finding {
    let ok = |evidence: String| Finding::ok(Code::JobFailed, object, &job.scope, evidence);
    if let Some(error) = &job.unreadable {
        return ok(format!("nothing is known of its runs: {error}")).bad(
            State::Unknown,
            None,
            "make its state file readable, or remove it",
        );
    }
    let Some(RunFacts {
        end, outcome, task, ..
    }) = &job.last
    else {
        return ok("it has not run yet".to_owned()).measured(0.0, "", None, 0.0);
    };
    let log = format!("proxmox-backup-manager task log '{task}'");
    let when = moment.ago(*end);
    let finding = match outcome {
        Outcome::Ok => ok(format!("its last run ended well, {when}")),
        Outcome::Warnings(count) => {
            let warnings = if *count == 1 { "warning" } else { "warnings" };
            ok(format!(
                "its last run ended with {count} {warnings}, {when}"
            ))
            .bad(State::Warning, None, format!("read its log: {log}"))
        }
        Outcome::Failed(_) | Outcome::Unknown if job.disabled => {
            ok(format!("it is switched off; its last run failed, {when}"))
        }
        Outcome::Failed(_) | Outcome::Unknown => {
            let reason = match outcome {
                Outcome::Failed(reason) => reason.as_str(),
                _ => "it was cut off; nobody knows how far it came",
            };
            let times = match job.failures {
                0 | 1 => "failed".to_owned(),
                count => format!("failed {count} times in a row"),
            };
            let success = match job.last_success {
                Some(at) => format!("last success {}", moment.ago(at)),
                None => "no success is known".to_owned(),
            };
            let since = (job.failures <= 1).then_some(*end);
            ok(format!("{times}, last {when}: {reason}; {success}")).bad(
                State::Critical,
                since,
                format!("read its log: {log}; then run it: {}", run_command(job)),
            )
        }
    };
    let failures = match finding.state {
        State::Critical => job.failures.max(1),
        _ => job.failures,
    };
    finding.measured(float_u(failures), "", None, 0.0)
}

/// Whether it should have begun. `waited` tells for how long it waits since it was due while a server could have started it, and for
/// how long it waits in this one.
fn late(
    job: &JobFacts,
    code: Code,
    object: &str,
    waited: impl Fn(i64) -> (i64, i64),
    moment: &Moment,
) -> Finding {
    let ok = |evidence: String| Finding::ok(code, object, &job.scope, evidence);
    let schedule = job.schedule.as_deref().unwrap_or_default();
    if job.disabled {
        return ok("it is switched off".to_owned());
    }
    if let Some(since) = job.running {
        return ok(format!("it runs since {}", moment.text(since)));
    }
    let event: CalendarEvent = match schedule.parse() {
        Ok(event) => event,
        Err(err) => {
            return ok(format!("its schedule '{schedule}' makes no sense: {err}")).bad(
                State::Critical,
                None,
                "correct its schedule; 'backstop calendar EVENT' explains one",
            );
        }
    };
    let next = |after: i64| event.next_after(after, &moment.zone);
    let Some(due) = next(job.reference) else {
        return ok(format!("its schedule '{schedule}' never comes again")).bad(
            State::Warning,
            None,
            "give it another schedule, or remove it",
        );
    };
    if due > moment.now {
        let text = match code {
            Code::JobNeverRan => "its first run is on",
            _ => "its next run is on",
        };
        return ok(format!("{text} {}", moment.text(due)));
    }
    // Before a server ran, it could not be started.
    let (overdue, here) = waited(due);
    if overdue <= LATE {
        return ok(format!(
            "it was due {} and is about to start",
            moment.ago(due)
        ));
    }
    let missed_again = next(due).is_some_and(|next| next <= moment.now);
    let state = match missed_again && overdue > VERY_LATE {
        true => State::Critical,
        false => State::Warning,
    };
    let what = match code {
        Code::JobNeverRan => "it never ran, and was due first",
        _ => "it was not started when it was due,",
    };
    ok(format!(
        "{what} {} by its schedule '{schedule}'",
        moment.ago(due)
    ))
    .bad(
        state,
        Some(due),
        format!(
            "the server's log says why it cannot be started; or run it: {}",
            run_command(job)
        ),
    )
    .measured(float(overdue.max(here)), "s", float(LATE), float(VERY_LATE))
}

fn slow(job: &JobFacts, object: &str, learnt: &Learnt, moment: &Moment) -> Finding {
    let ok = |evidence: String| Finding::ok(Code::JobSlow, object, &job.scope, evidence);
    let Some(since) = job.running else {
        return ok("it does not run now".to_owned());
    };
    let duration = moment.age(since);
    let runs = learnt.durations(object);
    let usual = match learnt.usual_duration(object) {
        Some(usual) if runs >= ENOUGH => usual,
        _ => {
            let text = format!(
                "it runs for {}; only {runs} of the {ENOUGH} runs are known that tell how long it takes",
                span_text(duration)
            );
            let limit = unusual(job, since, moment);
            let finding = match duration > limit {
                true => ok(text).bad(State::Warning, Some(since.saturating_add(limit)), HANGS),
                false => ok(text),
            };
            return finding.measured(float(duration), "s", float(limit), None);
        }
    };
    let limit = usual.saturating_mul(3).saturating_add(30 * 60);
    let worse = usual.saturating_mul(10).saturating_add(2 * 3600);
    let text = format!(
        "it runs for {}; {} is usual",
        span_text(duration),
        span_text(usual)
    );
    let finding = match duration {
        long if long > worse => Some(State::Critical),
        long if long > limit => Some(State::Warning),
        _ => None,
    };
    let finding = match finding {
        Some(state) => ok(text).bad(state, Some(since.saturating_add(limit)), HANGS),
        None => ok(text),
    };
    finding.measured(float(duration), "s", float(limit), float(worse))
}

const HANGS: &str = "look at what it does: proxmox-backup-manager task list; stop it if it hangs";

/// How long a run may take of which nothing is known, in seconds.
fn unusual(job: &JobFacts, since: i64, moment: &Moment) -> i64 {
    let event = job.schedule.as_ref();
    let event: Option<CalendarEvent> = event.and_then(|schedule| schedule.parse().ok());
    let next = |after: i64| event.as_ref()?.next_after(after, &moment.zone);
    match next(since).and_then(next) {
        Some(second) => second.saturating_sub(since).clamp(UNUSUAL_MISSED, UNUSUAL),
        None => UNUSUAL,
    }
}

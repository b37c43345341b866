//! `/backstop/datastore/{store}/retention-lock`: for how long nobody can remove snapshots.
//!
//! Whatever makes a lock tighter needs `Datastore.Modify` where the lock is; whatever loosens one needs `root@pam` and takes
//! effect only after the grace window. Each change, and each refused one, is a task, so that it is on record by whom it was made.

use std::sync::mpsc;

use backstop_datastore::{
    Change, ClockRequest, Datastore, DatastoreError, Lock, MAX_DAYS, MAX_GRACE_HOURS,
    RetentionLock, moment, place,
};
use backstop_types::schema::{Property, Schema};
use backstop_types::{Namespace, Operation, Privileges};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::admin::datastore::parameters::{NS, STORE, namespace, store};
use crate::api::admin::datastore::reach::{Reach, VISIBLE};
use crate::http::{ApiError, Reply};
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::task::{TaskFailure, TaskSpec};

/// Type of the tasks.
const WORKER_TYPE: &str = "retention-lock";

static DAYS: Schema = Schema::integer(1, MAX_DAYS as i64);
static GRACE_HOURS: Schema = Schema::integer(1, MAX_GRACE_HOURS as i64);

const PLACE: &[Property] = &[STORE, NS];
const SET: &[Property] = &[
    STORE,
    NS,
    Property::required("days", &DAYS),
    Property::optional("grace-hours", &GRACE_HOURS),
];
const SHORTEN: &[Property] = &[STORE, NS, Property::required("days", &DAYS)];
const CANCEL: &[Property] = &[STORE, NS, Property::optional("clock", &BOOLEAN)];
const ONLY_STORE: &[Property] = &[STORE];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler: Handler::blocking(handler),
    };
    let path = "/backstop/datastore/{store}/retention-lock";
    // Which namespace it is about is known only with the parameters, so that these handlers check privileges first of all.
    let (any, root) = (Permission::Anybody, Permission::Superuser);
    vec![
        endpoint(
            Method::Get,
            path,
            "The retention locks that concern a namespace and those below it.",
            PLACE,
            any,
            show as fn(&RequestContext, &Params) -> Result<Reply, ApiError>,
        ),
        endpoint(
            Method::Put,
            path,
            "Sets a retention lock, or lengthens one.",
            SET,
            any,
            set,
        ),
        endpoint(
            Method::Delete,
            path,
            "Requests the removal of a retention lock, which takes effect after its grace window.",
            PLACE,
            root,
            request_removal,
        ),
        endpoint(
            Method::Post,
            "/backstop/datastore/{store}/retention-lock/shorten",
            "Requests that a retention lock be shortened, which takes effect after its grace window.",
            SHORTEN,
            root,
            shorten,
        ),
        endpoint(
            Method::Post,
            "/backstop/datastore/{store}/retention-lock/cancel",
            "Withdraws a request to loosen a retention lock.",
            CANCEL,
            any,
            cancel,
        ),
        endpoint(
            Method::Post,
            "/backstop/datastore/{store}/retention-lock/confirm-clock",
            "Requests that a clock be believed that was set forward, which takes effect after the longest grace window.",
            ONLY_STORE,
            root,
            confirm_clock,
        ),
    ]
}

/// What is known of the locks of a datastore.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    /// The lock that decides in the namespace that was asked for: where it is set, and its days.
    governing: Option<Value>,
    /// The locks on that namespace, on those that contain it, and on those below it.
    locks: Vec<Item>,
    /// The time that the locks go by, in seconds since 1970.
    now: i64,
    /// How far the clock of the system is ahead of that, in seconds, if it is not trusted.
    #[serde(skip_serializing_if = "is_zero")]
    clock_ahead: i64,
    /// The request to trust it.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_request: Option<ClockRequest>,
    /// The last changes, oldest first.
    history: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Item {
    ns: Namespace,
    #[serde(flatten)]
    lock: Lock,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// What is known of the locks that concern a namespace and those below it.
///
/// # Errors
/// The locks cannot be read.
pub fn describe(datastore: &Datastore, scope: &Namespace) -> Result<Value, DatastoreError> {
    let Some(status) = datastore.retention_lock().status()? else {
        let now = jiff::Timestamp::now().as_second();
        return Ok(json!({"governing": null, "locks": [], "now": now, "history": []}));
    };
    let (locks, time) = (status.locks, status.time);
    let governing = locks.governing(scope, time.now);
    let concerns = |ns: &Namespace| ns.contains(scope) || scope.contains(ns);
    let status = Status {
        governing: governing.map(|found| json!({"ns": found.namespace, "days": found.days})),
        locks: locks
            .locks
            .into_iter()
            .filter(|(ns, _)| concerns(ns))
            .map(|(ns, lock)| Item { ns, lock })
            .collect(),
        now: time.now,
        clock_ahead: time.ahead,
        clock_request: locks.clock_request,
        history: locks
            .history
            .into_iter()
            .filter(|change| concerns(&change.ns))
            .collect(),
    };
    Ok(json!(status))
}

fn show(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns) = (store(params)?, namespace(params)?);
    let (_, datastore) = Reach::open(
        context,
        &store,
        &ns,
        VISIBLE,
        Privileges::NONE,
        Operation::Read,
    )?;
    Reply::data(&describe(&datastore, &ns)?)
}

/// Makes a change as a task, and waits for it.
fn change<T: Send + 'static>(
    context: &RequestContext,
    params: &Params,
    what: String,
    work: impl FnOnce(RetentionLock, &Namespace, &str) -> Result<T, DatastoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let (store, ns) = (store(params)?, namespace(params)?);
    let caller = context.auth_id()?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Write)?;
    let id = if ns.is_root() {
        store.to_string()
    } else {
        format!("{store}:{ns}")
    };
    let spec = TaskSpec::new(WORKER_TYPE, id, caller).on(&datastore);
    let by = caller.to_string();
    let (sender, result) = mpsc::sync_channel(1);
    context.server().tasks().spawn_thread(spec, move |task| {
        task.log(format!("{}: {what}, by {by}", place(&ns)));
        tracing::warn!(%store, %ns, by, what, "change of a retention lock");
        let done = work(datastore.retention_lock(), &ns, &by).map_err(TaskFailure::from);
        let outcome = done.as_ref().map(|_| ()).map_err(TaskFailure::clone);
        // the request may have been given up
        let _ = sender.send(done);
        outcome
    })?;
    let done = result
        .recv()
        .map_err(|_| ApiError::bad_request("the task ended without a result"))?;
    done.map_err(|failure| ApiError::bad_request(failure.to_string()))
}

/// Fails unless the caller may change locks in the namespace.
fn check_modify(context: &RequestContext, params: &Params) -> Result<(), ApiError> {
    let (store, ns) = (store(params)?, namespace(params)?);
    Reach::of(
        context,
        &store,
        &ns,
        Privileges::DATASTORE_MODIFY,
        Privileges::NONE,
    )?;
    Ok(())
}

fn number(params: &Params, name: &str) -> Result<Option<u32>, ApiError> {
    let number = params.unsigned(name)?.map(u32::try_from).transpose();
    number.map_err(|_| ApiError::parameter(name, "the number is too large"))
}

fn set(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    check_modify(context, params)?;
    let days = number(params, "days")?.unwrap_or_default();
    let grace = number(params, "grace-hours")?;
    let what = match grace {
        Some(hours) => format!("set to {days} days with a grace window of {hours} hours"),
        None => format!("set to {days} days"),
    };
    change(context, params, what, move |lock, ns, by| {
        lock.set(ns, days, grace, by)
    })?;
    Ok(Reply::null())
}

/// The answer to a request: when it takes effect.
fn effective(at: i64) -> Result<Reply, ApiError> {
    Reply::data(&json!({ "effective-at": at, "effective": moment(at) }))
}

fn request_removal(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let what = "removal requested".to_owned();
    effective(change(context, params, what, |lock, ns, by| {
        lock.request(ns, 0, by)
    })?)
}

fn shorten(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let days = number(params, "days")?.unwrap_or_default();
    let what = format!("shortening to {days} days requested");
    effective(change(context, params, what, move |lock, ns, by| {
        lock.request(ns, days, by)
    })?)
}

fn cancel(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    check_modify(context, params)?;
    let clock = params.bool("clock", false);
    let what = match clock {
        true => "request to confirm the clock withdrawn",
        false => "request to loosen it withdrawn",
    };
    change(context, params, what.to_owned(), move |lock, ns, by| {
        if clock {
            lock.cancel_clock(by)
        } else {
            lock.cancel(ns, by)
        }
    })?;
    Ok(Reply::null())
}

fn confirm_clock(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let what = "confirmation of the clock requested".to_owned();
    effective(change(context, params, what, |lock, _, by| {
        lock.confirm_clock(by)
    })?)
}

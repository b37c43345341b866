//! `/backstop/health`: the one list of checks, who knows of what, how often backups are expected, and maintenance windows.
//!
//! Everybody sees the checks of what they may audit. Acknowledging, expectations and windows for a datastore need
//! `Datastore.Modify` there, what concerns the server `Sys.Modify`; that is decided by the name of the object, before anything is
//! looked up.

mod settings;

use backstop_health::{Change, Check, Code, Every, Finding, Overall, Scope, State, parse_span};
use backstop_types::config_schema::value;
use backstop_types::schema::{Format, Property, Schema};
use backstop_types::{BackupGroup, Namespace, Privileges, is_safe_id};
use jiff::Timestamp;
use serde_json::json;

use super::super::admin::datastore::parameters::{NS, STORE, STORE_FILTER};
use crate::health::Eyes;
use crate::http::{ApiError, Reply};
use crate::router::schema::{BOOLEAN, INTEGER};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

static STATE: Schema = Schema::words(&["ok", "unknown", "warning", "critical"]);
static STATES: Schema = Schema::array(&STATE);
static CODE: Schema = Schema::text(1, 64, Format::Verify(is_code));
static CODES: Schema = Schema::array(&CODE);
static OBJECT: Schema = Schema::text(1, 1024, Format::Pattern(is_line));
static COMMENT: Schema = Schema::text(0, 1024, Format::Pattern(is_line));
static SPAN: Schema = Schema::text(1, 64, Format::Verify(is_span));
static EVERY: Schema = Schema::text(1, 64, Format::Verify(is_every));
static GROUP: Schema = Schema::text(4, 128, Format::Verify(is_group));
static WINDOW_ID: Schema = Schema::text(2, 32, Format::Pattern(is_safe_id));

const LIST: &[Property] = &[
    Property::optional("state", &STATES),
    Property::optional("code", &CODES),
    Property::optional("object", &OBJECT),
    STORE_FILTER,
    Property::optional("refresh", &BOOLEAN),
];
const ONE: [Property; 2] = [
    Property::required("code", &CODE),
    Property::required("object", &OBJECT),
];
const ACKNOWLEDGE: &[Property] = &[
    ONE[0],
    ONE[1],
    Property::optional("comment", &COMMENT),
    Property::optional("until", &INTEGER),
];
const UNACKNOWLEDGE: &[Property] = &ONE;
const SOME_GROUP: Property = Property::optional("group", &GROUP);
const EXPECT: &[Property] = &[STORE, NS, SOME_GROUP, Property::required("every", &EVERY)];
const PLACE: &[Property] = &[STORE, NS, SOME_GROUP];
const ADD_WINDOW: &[Property] = &[
    Property::required("id", &WINDOW_ID),
    Property::optional("schedule", &value::CALENDAR_EVENT),
    Property::optional("start", &INTEGER),
    Property::required("duration", &SPAN),
    STORE_FILTER,
    NS,
    SOME_GROUP,
    Property::optional("code", &CODES),
    Property::optional("object", &OBJECT),
    Property::optional("comment", &COMMENT),
];
/// One of these is needed to have everything looked at anew.
const AUDIT: Privileges = Privileges::SYS_AUDIT
    .union(Privileges::DATASTORE_AUDIT)
    .union(Privileges::REMOTE_AUDIT);
const WINDOW: &[Property] = &[Property::required("id", &WINDOW_ID)];

fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn is_code(text: &str) -> Result<(), String> {
    text.parse::<Code>().map(|_| ())
}

fn is_span(text: &str) -> Result<(), String> {
    parse_span(text).map(|_| ())
}

fn is_every(text: &str) -> Result<(), String> {
    text.parse::<Every>().map(|_| ())
}

fn is_group(text: &str) -> Result<(), String> {
    let parsed = text.parse::<BackupGroup>();
    parsed.map(|_| ()).map_err(|err| err.to_string())
}

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    const ACKNOWLEDGED: &str = "/backstop/health/acknowledge";
    const EXPECTATIONS: &str = "/backstop/health/expectations";
    const WINDOWS: &str = "/backstop/health/windows";
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler: Handler::blocking(handler),
    };
    // Lists show each caller what it may see; what changes something checks first of all.
    let (any, audit) = (
        Permission::Anybody,
        Permission::all("/system/status", Privileges::SYS_AUDIT),
    );
    let modify = Permission::all("/system/status", Privileges::SYS_MODIFY);
    vec![
        endpoint(
            Method::Get,
            "/backstop/health",
            "What is wrong, and what is not: the one list of checks.",
            LIST,
            any,
            list as fn(&RequestContext, &Params) -> Result<Reply, ApiError>,
        ),
        endpoint(
            Method::Get,
            "/backstop/health/history",
            "What has changed in the list of checks, oldest first.",
            &[],
            any,
            history,
        ),
        endpoint(
            Method::Post,
            ACKNOWLEDGED,
            "Notes that somebody knows of something, so that it calls for nobody until it recovers or gets worse.",
            ACKNOWLEDGE,
            any,
            acknowledge,
        ),
        endpoint(
            Method::Delete,
            ACKNOWLEDGED,
            "Takes an acknowledgement back.",
            UNACKNOWLEDGE,
            any,
            unacknowledge,
        ),
        endpoint(
            Method::Get,
            EXPECTATIONS,
            "How often backups are expected.",
            &[],
            any,
            settings::expectations,
        ),
        endpoint(
            Method::Post,
            EXPECTATIONS,
            "Sets how often backups of a datastore, a namespace or a group are expected.",
            EXPECT,
            any,
            settings::expect,
        ),
        endpoint(
            Method::Delete,
            EXPECTATIONS,
            "Leaves it to the cadence of each group again.",
            PLACE,
            any,
            settings::forget,
        ),
        endpoint(
            Method::Get,
            WINDOWS,
            "The maintenance windows.",
            &[],
            audit,
            settings::windows,
        ),
        endpoint(
            Method::Post,
            WINDOWS,
            "Adds a maintenance window, in which trouble is expected.",
            ADD_WINDOW,
            modify,
            settings::add_window,
        ),
        endpoint(
            Method::Delete,
            "/backstop/health/windows/{id}",
            "Removes a maintenance window.",
            WINDOW,
            modify,
            settings::remove_window,
        ),
    ]
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn parsed<T: std::str::FromStr<Err = String>>(text: &str, name: &str) -> Result<T, ApiError> {
    text.parse().map_err(|err| ApiError::parameter(name, err))
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let health = context.server().health();
    let (server, caller) = (context.server(), context.auth_id()?);
    // A look costs, so that it is no matter of those who may look at nothing; the list says that they see none of it.
    let may_refresh = || server.privileges_below(caller, "", AUDIT);
    let checked = match params.bool("refresh", false) && may_refresh() {
        true => health.fresh(),
        false => health.first(),
    };
    let eyes = Eyes::new(server, caller);
    let states: Vec<State> = params
        .texts("state")
        .into_iter()
        .map(|state| parsed(state, "state"))
        .collect::<Result<_, _>>()?;
    let codes: Vec<Code> = params
        .texts("code")
        .into_iter()
        .map(|code| parsed(code, "code"))
        .collect::<Result<_, _>>()?;
    let (object, store) = (params.text("object"), params.text("store"));
    let is_wanted = |finding: &Finding| {
        (codes.is_empty() || codes.contains(&finding.code))
            && object.is_none_or(|object| finding.object == object)
            && store.is_none_or(|store| finding.scope.datastore.as_deref() == Some(store))
            && eyes.see(finding)
    };
    let checks = checked.checks.iter();
    let checks: Vec<&Check> = checks.filter(|check| is_wanted(&check.finding)).collect();
    let age = checked.age(now());
    let overall = Overall::of(checks.iter().copied(), age);
    let has_state = |check: &&Check| states.is_empty() || states.contains(&check.finding.state);
    let shown: Vec<&Check> = checks.into_iter().filter(has_state).collect();
    Reply::data(&json!({
        "state": overall.state,
        "note": overall.note,
        "counts": overall.counts,
        "checked": checked.at,
        "age": age,
        "milliseconds": checked.milliseconds,
        "checks": shown,
    }))
}

fn history(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let eyes = Eyes::new(context.server(), context.auth_id()?);
    let changes = context.server().health().history();
    let seen = |change: &Change| {
        let finding = Finding::ok(change.code, &change.object, &change.scope, "");
        eyes.see(&finding)
    };
    let shown: Vec<Change> = changes.into_iter().filter(seen).collect();
    Reply::data(&shown)
}

/// Fails unless the caller may act on an object, judged by its name alone.
fn check_object(context: &RequestContext, object: &str) -> Result<(), ApiError> {
    let scope = Scope::of_object(object);
    let (path, privilege) = match &scope.datastore {
        Some(store) => {
            let store = store
                .parse()
                .map_err(|_| ApiError::parameter("object", "it names no datastore"))?;
            let namespace = scope.namespace.unwrap_or_else(Namespace::root);
            (namespace.acl_path(&store), Privileges::DATASTORE_MODIFY)
        }
        None => ("/system/status".to_owned(), Privileges::SYS_MODIFY),
    };
    let granted = context.server().privileges(context.auth_id()?, &path);
    match granted.contains(privilege) {
        true => Ok(()),
        false => Err(ApiError::missing_privilege(
            &privilege.names().join("|"),
            &path,
        )),
    }
}

fn acknowledge(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let object = params.required_text("object")?;
    check_object(context, object)?;
    let code: Code = parsed(params.required_text("code")?, "code")?;
    let by = context.auth_id()?.to_string();
    let comment = params.text("comment").unwrap_or_default();
    let health = context.server().health();
    health
        .acknowledge((code, object), &by, comment, params.integer("until"))
        .map_err(|err| ApiError::bad_request(format!("unable to acknowledge it - {err}")))?;
    tracing::info!(%code, object, by, comment, "health: acknowledged");
    health.fresh();
    Ok(Reply::null())
}

fn unacknowledge(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let object = params.required_text("object")?;
    check_object(context, object)?;
    let code: Code = parsed(params.required_text("code")?, "code")?;
    let health = context.server().health();
    health.unacknowledge(code, object).map_err(|err| {
        ApiError::bad_request(format!("unable to take an acknowledgement back - {err}"))
    })?;
    let by = context.auth_id()?;
    tracing::info!(%code, object, %by, "health: acknowledgement taken back");
    health.fresh();
    Ok(Reply::null())
}

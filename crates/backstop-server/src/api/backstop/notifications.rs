//! `/backstop/notifications/spool`: what has not arrived at its target.

use backstop_types::Privileges;
use backstop_types::schema::{Format, Property, Schema};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::http::error::chain;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

static SPOOL_ID: Schema = Schema::text(
    1,
    128,
    Format::Pattern(|text| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    }),
);
const ID: Property = Property::required("id", &SPOOL_ID);

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    const ALL: &str = "/backstop/notifications/spool";
    let read = Permission::all("/system/notifications", Privileges::SYS_AUDIT);
    let write = Permission::all("/system/notifications", Privileges::SYS_MODIFY);
    vec![
        Endpoint {
            method: Method::Get,
            path: ALL,
            about: "Lists the notifications that have not arrived though they were tried, those that wait behind them, and those that are refused.",
            params: &[],
            permission: read,
            handler: Handler::blocking(list),
        },
        Endpoint {
            method: Method::Delete,
            path: "/backstop/notifications/spool/{id}",
            about: "Gives up a notification that has not arrived.",
            params: &[ID],
            permission: write,
            handler: Handler::blocking(discard),
        },
        Endpoint {
            method: Method::Post,
            path: "/backstop/notifications/retry",
            about: "Tries to deliver at once what has not arrived, also what was refused.",
            params: &[],
            permission: write,
            handler: Handler::blocking(retry),
        },
    ]
}

fn failed(err: &dyn std::error::Error) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, chain(err))
}

fn list(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let notifier = context.server().notifier();
    let undelivered = notifier.undelivered().map_err(|err| failed(&err))?;
    let mut list = Vec::new();
    for entry in undelivered {
        let notification = notifier.dispatch().find(&entry.id);
        // one that has arrived meanwhile
        let Some(notification) = notification.map_err(|err| failed(&err))? else {
            continue;
        };
        list.push(json!({
            "id": entry.id,
            "target": entry.lane,
            "template": notification.template(),
            "severity": notification.severity,
            "fields": notification.fields,
            "time": notification.time,
            "attempts": entry.attempts,
            "first-failure": entry.first_failure,
            "next-try": (!entry.refused).then_some(entry.next_try),
            "refused": entry.refused,
            "last-error": entry.last_error,
        }));
    }
    Reply::data(&Value::Array(list))
}

fn discard(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    let dispatch = context.server().notifier().dispatch();
    match dispatch.discard(id).map_err(|err| failed(&err))? {
        true => Ok(Reply::null()),
        false => Err(ApiError::not_found(format!(
            "there is no notification '{id}' in the spool; it may have arrived"
        ))),
    }
}

fn retry(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let notifier = context.server().notifier();
    notifier.retry().map_err(|err| failed(&err))?;
    Ok(Reply::null())
}

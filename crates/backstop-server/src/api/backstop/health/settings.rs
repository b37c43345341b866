//! What the operator says: how often backups are expected, and maintenance windows.

use backstop_health::{Expectation, Place, Scope, Window, parse_span};
use backstop_types::Privileges;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::super::super::admin::datastore::parameters::{namespace, store};
use super::super::super::admin::datastore::reach::Reach;
use super::{now, parsed};
use crate::api::edit_error;
use crate::health::{Eyes, edit_settings, load_settings};
use crate::http::{ApiError, Reply};
use crate::router::{Params, RequestContext};

/// The place among the parameters, which the caller may change.
fn place(context: &RequestContext, params: &Params) -> Result<Place, ApiError> {
    let (store, ns) = (store(params)?, namespace(params)?);
    let modify = Privileges::DATASTORE_MODIFY;
    Reach::of(context, &store, &ns, modify, Privileges::NONE)?;
    Ok(Place {
        datastore: store.to_string(),
        namespace: params.has("ns").then_some(ns).filter(|ns| !ns.is_root()),
        group: params.text("group").map(str::to_owned),
    })
}

/// Fails unless the datastore among the parameters is configured: nothing would ever be judged by what is said of another. Only after the
/// caller's privileges were checked, so that nobody can find out what exists.
fn check_datastore(context: &RequestContext, params: &Params) -> Result<(), ApiError> {
    context.server().datastores().config(&store(params)?)?;
    Ok(())
}

pub(super) fn expectations(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let eyes = Eyes::new(context.server(), context.auth_id()?);
    let settings = load_settings(context.server().config())?;
    let sees = |expectation: &&Expectation| {
        let scope = Scope {
            datastore: Some(expectation.place.datastore.clone()),
            namespace: expectation.place.namespace.clone(),
            ..Scope::default()
        };
        eyes.see_scope(&scope)
    };
    let shown: Vec<Value> = settings
        .expectations
        .iter()
        .filter(sees)
        .map(|expectation| json!(expectation))
        .collect();
    Reply::data(&shown)
}

pub(super) fn expect(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let place = place(context, params)?;
    check_datastore(context, params)?;
    let expectation = Expectation {
        place,
        every: parsed(params.required_text("every")?, "every")?,
        made_by: context.auth_id()?.to_string(),
        made_at: now(),
    };
    let config = context.server().config();
    edit_settings(config, |settings| settings.expect(expectation)).map_err(edit_error)?;
    Ok(Reply::null())
}

pub(super) fn forget(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let place = place(context, params)?;
    let config = context.server().config();
    edit_settings(config, |settings| settings.forget(&place)).map_err(edit_error)?;
    Ok(Reply::null())
}

pub(super) fn windows(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let settings = load_settings(context.server().config())?;
    let (now, zone) = (now(), TimeZone::system());
    let shown: Vec<Value> = settings
        .windows
        .iter()
        .map(|window| {
            let mut shown = json!(window);
            if let Some(span) = window.occurrence(now, &zone) {
                shown["active-until"] = json!(span.end);
            }
            shown
        })
        .collect();
    Reply::data(&shown)
}

pub(super) fn add_window(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let text = |name: &str| params.text(name).map(str::to_owned);
    let place = match params.has("store") {
        false if params.has("ns") || params.has("group") => {
            return Err(ApiError::parameter("store", "name its datastore, too"));
        }
        false => None,
        true => Some(Place {
            datastore: params.required_text("store")?.to_owned(),
            namespace: Some(namespace(params)?).filter(|ns| !ns.is_root()),
            group: text("group"),
        }),
    };
    if place.is_some() {
        check_datastore(context, params)?;
    }
    let codes = params.texts("code").into_iter();
    let (start, schedule) = (params.integer("start"), text("schedule"));
    let window = Window {
        id: params.required_text("id")?.to_owned(),
        // One that names neither begins now.
        start: start.or_else(|| schedule.is_none().then(now)),
        schedule,
        duration: parse_span(params.required_text("duration")?)
            .map_err(|err| ApiError::parameter("duration", err))?,
        place,
        codes: codes
            .map(|code| parsed(code, "code"))
            .collect::<Result<_, _>>()?,
        object: text("object"),
        comment: text("comment").unwrap_or_default(),
        made_by: context.auth_id()?.to_string(),
        made_at: now(),
    };
    let config = context.server().config();
    edit_settings(config, |settings| settings.add_window(window)).map_err(edit_error)?;
    Ok(Reply::null())
}

pub(super) fn remove_window(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    let config = context.server().config();
    edit_settings(config, |settings| settings.remove_window(id)).map_err(edit_error)?;
    Ok(Reply::null())
}

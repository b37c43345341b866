//! `/backstop/remote/{remote}`: a server that others pull from tells them which certificate it shows from now on.
//!
//! Whoever may change the remote may say so, and the one token that was named its announcer, which needs no privilege at all and
//! so can do nothing else. Neither is believed: the certificate is remembered as an announced one, and takes the place of the pinned
//! one only when the remote itself shows it and proves that it has the key.

use backstop_format::Fingerprint;
use backstop_types::config_schema::value;
use backstop_types::schema::Property;
use backstop_types::{AuthId, Privileges};
use serde_json::json;

use crate::api::edit_error;
use crate::config::remote;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const REMOTE: Property = Property::required("remote", &value::CONFIG_ID);
const ONE: &[Property] = &[REMOTE];
const SET: &[Property] = &[REMOTE, Property::required("tokenid", &value::AUTH_ID)];
const ANNOUNCE: &[Property] = &[
    REMOTE,
    Property::required("fingerprint", &value::FINGERPRINT),
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let announcer = "/backstop/remote/{remote}/announcer";
    let modify = Permission::all("/remote/{remote}", Privileges::REMOTE_MODIFY);
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler: Handler::blocking(handler),
    };
    vec![
        endpoint(
            Method::Put,
            announcer,
            "Lets an API token announce the certificate of this remote, and no other.",
            SET,
            modify,
            set as fn(&RequestContext, &Params) -> Result<Reply, ApiError>,
        ),
        endpoint(
            Method::Delete,
            announcer,
            "Lets no token announce the certificate of this remote any more.",
            ONE,
            modify,
            unset,
        ),
        endpoint(
            Method::Post,
            "/backstop/remote/{remote}/certificate",
            "Announces the certificate that this remote shows from now on.",
            ANNOUNCE,
            // Which token is the announcer of which remote, the handler knows.
            Permission::Anybody,
            announce,
        ),
    ]
}

fn set(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let token: AuthId = params.required("tokenid")?;
    let name = params.required_text("remote")?;
    remote::set_announcer(context.server().config(), name, Some(token)).map_err(edit_error)?;
    Ok(Reply::null())
}

fn unset(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let name = params.required_text("remote")?;
    remote::set_announcer(context.server().config(), name, None).map_err(edit_error)?;
    Ok(Reply::null())
}

fn announce(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (server, caller) = (context.server(), context.auth_id()?);
    let name = params.required_text("remote")?;
    let path = format!("/remote/{name}");
    let is_announcer = || -> Result<bool, ApiError> {
        let announcer = remote::announcer(server.config(), name).map_err(edit_error)?;
        Ok(announcer.as_ref() == Some(caller))
    };
    let may_modify = server
        .privileges(caller, &path)
        .contains(Privileges::REMOTE_MODIFY);
    if !may_modify && !is_announcer()? {
        return Err(ApiError::missing_privilege("Remote.Modify", &path));
    }
    let text = params.required_text("fingerprint")?;
    let next = text
        .parse::<Fingerprint>()
        .map_err(|_| ApiError::parameter("fingerprint", "it is no SHA-256 fingerprint"))?;
    let account = server.remote_account(name).map_err(edit_error)?;
    let Some(pin) = account.fingerprint else {
        return Err(ApiError::bad_request(format!(
            "remote '{name}' has no fingerprint that could change; authorities vouch for it"
        )));
    };
    if pin == next {
        return Reply::data(&json!({ "fingerprint": next, "state": "pinned" }));
    }
    account.pins.announced(pin, next)?;
    tracing::warn!(
        remote = name,
        by = %caller,
        fingerprint = %next,
        "a changed certificate was announced; it counts when the remote shows it"
    );
    Reply::data(&json!({ "fingerprint": next, "state": "announced" }))
}

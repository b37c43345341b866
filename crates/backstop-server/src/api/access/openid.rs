//! `/access/openid`: logging in at an OpenID provider.

use std::sync::Arc;

use backstop_types::config_schema::value;
use backstop_types::schema::{Format, Property, Schema};

use super::ticket::logged_in;
use crate::access::LoginError;
use crate::access::openid::OpenIdSettings;
use crate::api::edit_error;
use crate::http::{ApiError, Reply};
use crate::router::dispatch::on_thread;
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

static URL: Schema = Schema::text(1, 1024, Format::Pattern(is_web_address));
static TEXT: Schema = Schema::text(1, 8192, Format::Any);

fn is_web_address(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://"))
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

const AUTH_URL: &[Property] = &[
    Property::required("realm", &value::REALM),
    Property::required("redirect-url", &URL),
];
const LOGIN: &[Property] = &[
    Property::required("state", &TEXT),
    Property::required("code", &TEXT),
    Property::required("redirect-url", &URL),
    Property::optional("http-only", &BOOLEAN),
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Post,
            path: "/access/openid/auth-url",
            about: "Tells where the provider of a realm logs users in.",
            params: AUTH_URL,
            permission: Permission::World,
            handler: Handler::future(auth_url),
        },
        Endpoint {
            method: Method::Post,
            path: "/access/openid/login",
            about: "Logs a user in who comes back from a provider.",
            params: LOGIN,
            permission: Permission::World,
            handler: Handler::future(login),
        },
    ]
}

async fn settings(context: &RequestContext, realm: String) -> Result<OpenIdSettings, ApiError> {
    let server = Arc::clone(context.server());
    let read = move || OpenIdSettings::of_realm(server.config(), &realm).map_err(edit_error);
    on_thread(context.server(), None, read).await
}

async fn auth_url(context: RequestContext, params: Params) -> Result<Reply, ApiError> {
    let settings = settings(&context, params.required_text("realm")?.to_owned()).await?;
    let redirect_url = params.required_text("redirect-url")?;
    let access = context.server().access();
    let url = access
        .openid_auth_url(&settings, redirect_url, context.peer().ip())
        .await?;
    Reply::data(&url)
}

async fn login(context: RequestContext, params: Params) -> Result<Reply, ApiError> {
    let server = Arc::clone(context.server());
    let refused = |user: Option<&str>, reason: &str| {
        let user = user.unwrap_or("unknown");
        server.auth_log().failure(context.peer(), user, reason);
        ApiError::unauthorized(reason)
    };
    let access = server.access();
    let redirect_url = params.required_text("redirect-url")?;
    let pending = access
        .openid_pending(params.required_text("state")?, redirect_url)
        .map_err(|err| refused(None, &err.to_string()))?;
    let settings = settings(&context, pending.realm().to_owned())
        .await
        .map_err(|err| refused(None, &err.to_string()))?;
    let claims = access
        .openid_claims(&settings, &pending, params.required_text("code")?)
        .await
        .map_err(|err| refused(None, &err.to_string()))?;
    let http_only = params.bool("http-only", false);
    let own = Arc::clone(&server);
    let logged = on_thread(&server, None, move || {
        Ok(own.access().openid_login(&settings, &claims, http_only))
    })
    .await?;
    match logged {
        Ok(reply) => {
            if reply.is_new_user {
                let user = reply.record.username.as_str();
                server.audit_log().user_created(Some(context.peer()), user);
            }
            server
                .auth_log()
                .success(context.peer(), reply.record.username.as_str());
            logged_in(reply)
        }
        Err(LoginError::Incomplete(text)) => Err(ApiError::bad_request(text)),
        Err(LoginError::Refused(reason)) => Err(refused(reason.user.as_deref(), &reason.reason)),
    }
}

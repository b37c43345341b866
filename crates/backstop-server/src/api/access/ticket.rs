//! `/access/ticket`: logging in and out.

use std::sync::Arc;

use backstop_types::config_schema::value;
use backstop_types::schema::{ANY_TEXT, Property};
use backstop_types::{AuthId, UserId};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE};
use serde_json::{Value, json};

use crate::access::{LoginError, LoginReply, LoginRequest};
use crate::http::body::{self, Body};
use crate::http::credentials::{EXPIRED_COOKIE, host_cookie};
use crate::http::{ApiError, Reply};
use crate::router::dispatch::on_thread;
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const LOGIN: &[Property] = &[
    Property::required("username", &value::USER_ID),
    Property::optional("password", &value::PASSWORD),
    Property::optional("path", &ANY_TEXT),
    Property::optional("privs", &ANY_TEXT),
    Property::optional("port", &value::PORT),
    Property::optional("tfa-challenge", &ANY_TEXT),
    Property::optional("http-only", &BOOLEAN),
];

const TERMINAL: &[Property] = &[
    Property::required("authid", &value::AUTH_ID),
    Property::required("vncticket", &ANY_TEXT),
    Property::required("path", &ANY_TEXT),
    Property::required("privs", &ANY_TEXT),
    Property::optional("port", &value::PORT),
];

/// What tickets for terminals begin with.
const TERMINAL_MARK: &str = "PBSTERM:";

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Post,
            path: "/access/ticket",
            about: "Logs a user in, or renews a ticket.",
            params: LOGIN,
            permission: Permission::World,
            handler: Handler::future(login),
        },
        Endpoint {
            method: Method::Delete,
            path: "/access/ticket",
            about: "Takes the ticket out of the browser.",
            params: &[],
            permission: Permission::World,
            handler: Handler::future(|_, _| async { logout() }),
        },
        Endpoint {
            method: Method::Post,
            path: "/access/vncticket",
            about: "Checks a ticket for a terminal.",
            params: TERMINAL,
            permission: Permission::World,
            handler: Handler::blocking(verify_terminal),
        },
    ]
}

async fn login(context: RequestContext, params: Params) -> Result<Reply, ApiError> {
    let username = params.required_text("username")?.to_owned();
    let server = Arc::clone(context.server());
    if let Some(terminal) = terminal_ticket(&params)? {
        return check_terminal(context, params, username, terminal).await;
    }
    // A ticket that is not good may still be a password.
    let is_ticket = |password: &str| server.access().is_ticket(password);
    let is_renewal = params.has("tfa-challenge") || params.text("password").is_none_or(is_ticket);
    // Taken before a thread is: who waits for a directory server to answer must not hold one.
    let turn = if is_renewal {
        None
    } else {
        match server.access().outside_turn(&username).await {
            Ok(turn) => turn,
            Err(refused) => return answer(&context, &username, Err(refused.into())),
        }
    };
    on_thread(&server, None, move || {
        let _turn = turn;
        let cookie = host_cookie(context.headers());
        let request = LoginRequest {
            username: &username,
            password: params.text("password"),
            tfa_challenge: params.text("tfa-challenge"),
            http_only: params.bool("http-only", false),
            cookie: cookie.as_deref(),
            peer: Some(context.peer().ip()),
        };
        let result = context.server().access().login(&request);
        answer(&context, &username, result)
    })
    .await
}

/// What a ticket for a terminal is to be good for.
struct Terminal {
    path: String,
    privilege: String,
    port: u16,
}

/// Whether a ticket for a terminal is sent to be checked, and not a password.
fn terminal_ticket(params: &Params) -> Result<Option<Terminal>, ApiError> {
    let is_ticket = |password: &str| password.starts_with(TERMINAL_MARK);
    let all = (
        params.text("path"),
        params.text("privs"),
        params.unsigned("port")?,
    );
    Ok(match all {
        (Some(path), Some(privilege), Some(port))
            if !params.has("tfa-challenge") && params.text("password").is_some_and(is_ticket) =>
        {
            Some(Terminal {
                path: path.to_owned(),
                privilege: privilege.to_owned(),
                port: u16::try_from(port)?,
            })
        }
        _ => None,
    })
}

/// The answer to a good ticket is the user alone: it is no login.
async fn check_terminal(
    context: RequestContext,
    params: Params,
    username: String,
    terminal: Terminal,
) -> Result<Reply, ApiError> {
    let server = Arc::clone(context.server());
    on_thread(&server, None, move || {
        let user: UserId = params.required("username")?;
        let ticket = params.required_text("password")?;
        let wanted = (&*terminal.path, &*terminal.privilege, terminal.port);
        let access = context.server().access();
        if let Err(refused) = access.check_terminal_ticket(&user.clone().into(), ticket, wanted) {
            context
                .server()
                .auth_log()
                .failure(context.peer(), &username, &refused.reason);
            return Err(ApiError::unauthorized("permission check failed."));
        }
        Ok(Reply::Raw(enveloped(&json!({ "username": user }))))
    })
    .await
}

/// Checks a ticket for a terminal of a user or token, for the program that serves the terminal.
fn verify_terminal(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let auth_id: AuthId = params.required("authid")?;
    let ticket = params.required_text("vncticket")?;
    let port = params.unsigned("port")?.unwrap_or_default();
    let wanted = (
        params.required_text("path")?,
        params.required_text("privs")?,
        u16::try_from(port)?,
    );
    if !ticket.starts_with(TERMINAL_MARK) {
        return Err(ApiError::bad_request("Checking VNC ticket failed"));
    }
    let server = context.server();
    if let Err(refused) = server
        .access()
        .check_terminal_ticket(&auth_id, ticket, wanted)
    {
        let user = auth_id.to_string();
        server
            .auth_log()
            .failure(context.peer(), &user, &refused.reason);
        return Err(ApiError::bad_request("No such privilege"));
    }
    Ok(Reply::null())
}

/// Answers a login, and writes it to the log.
pub(super) fn answer(
    context: &RequestContext,
    username: &str,
    result: Result<LoginReply, LoginError>,
) -> Result<Reply, ApiError> {
    let server = context.server();
    let reply = match result {
        Ok(reply) => reply,
        Err(LoginError::Incomplete(text)) => return Err(ApiError::bad_request(text)),
        Err(LoginError::Refused(refused)) => {
            let user = refused.user.as_deref().unwrap_or(username);
            server
                .auth_log()
                .failure(context.peer(), user, &refused.reason);
            return Err(ApiError::unauthorized("permission check failed."));
        }
    };
    if !reply.is_pending {
        server
            .auth_log()
            .success(context.peer(), reply.record.username.as_str());
    }
    logged_in(reply)
}

/// The answer to a login that succeeded.
pub(super) fn logged_in(reply: LoginReply) -> Result<Reply, ApiError> {
    let mut response = enveloped(&json!(reply.record));
    if let Some(cookie) = reply.set_cookie {
        response
            .headers_mut()
            .insert(SET_COOKIE, HeaderValue::from_str(&cookie)?);
    }
    Ok(Reply::Raw(response))
}

/// Logins are answered alike in all formats.
fn enveloped(data: &Value) -> Response<Body> {
    let body = json!({ "data": data, "status": 200, "success": true });
    let mut response = Response::new(body::full(body.to_string()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn logout() -> Result<Reply, ApiError> {
    let mut response = Response::new(body::full(r#"{"data":{},"status":200,"success":true}"#));
    response
        .headers_mut()
        .insert(SET_COOKIE, HeaderValue::from_static(EXPIRED_COOKIE));
    Ok(Reply::Raw(response))
}

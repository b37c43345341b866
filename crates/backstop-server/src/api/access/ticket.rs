//! `/access/ticket`: logging in and out.

use std::sync::Arc;

use backstop_types::config_schema::value;
use backstop_types::schema::{ANY_TEXT, Property};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE};
use serde_json::json;

use crate::access::{LoginError, LoginReply, LoginRequest};
use crate::http::body;
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
    ]
}

async fn login(context: RequestContext, params: Params) -> Result<Reply, ApiError> {
    let username = params.required_text("username")?.to_owned();
    let server = Arc::clone(context.server());
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
    let body = json!({ "data": reply.record, "status": 200, "success": true });
    let mut response = Response::new(body::full(body.to_string()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(cookie) = reply.set_cookie {
        response
            .headers_mut()
            .insert(SET_COOKIE, HeaderValue::from_str(&cookie)?);
    }
    Ok(Reply::Raw(response))
}

fn logout() -> Result<Reply, ApiError> {
    let mut response = Response::new(body::full(r#"{"data":{},"status":200,"success":true}"#));
    response
        .headers_mut()
        .insert(SET_COOKIE, HeaderValue::from_static(EXPIRED_COOKIE));
    Ok(Reply::Raw(response))
}

//! Login: tickets for users, a fixed header for API tokens, and the renewal of tickets.
//!
//! A password is sent once, to a server whose certificate is trusted; it is never stored.

use std::time::Duration;

use http::Method;
use http::header::SET_COOKIE;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::connection::ClientOptions;
use crate::connection::HttpClient;
use crate::connection::http_client::{Answer, WeakClient, check_status, data};
use crate::error::{ClientError, Result};
use crate::second_factor::SecondFactorRequest;
use crate::ticket_cache::CachedTicket;

/// How often a ticket is renewed.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// How soon a failed renewal is tried again.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);

/// How often somebody at the terminal may try.
const ATTEMPTS: usize = 3;

const PLAIN_COOKIE: &str = "PBSAuthCookie";
const PREFIXED_COOKIE: &str = "__Host-PBSAuthCookie";

/// What a client sends to be recognised.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// An API token.
    Token { id: String, secret: String },
    /// A user's ticket.
    Ticket(Ticket),
}

/// A ticket as the server issued it.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub user: String,
    pub ticket: String,
    pub token: String,
    /// The cookie in which the server wants to see the ticket.
    pub cookie_name: &'static str,
}

/// Finds credentials according to the options; the flag tells whether they need renewal.
pub(crate) async fn log_in(client: &HttpClient) -> Result<(Credentials, bool)> {
    let options = client.options();
    let id = options.auth_id.to_string();
    if options.auth_id.is_token() {
        let secret = options
            .secret
            .clone()
            .ok_or(ClientError::MissingTokenSecret)?;
        return Ok((Credentials::Token { id, secret }, false));
    }
    if let Some(password) = &options.secret {
        return Ok((
            Credentials::Ticket(keep(options, with_password(client, &id, password).await?)),
            true,
        ));
    }
    let cached = options
        .ticket_cache
        .as_ref()
        .and_then(|cache| cache.load(&options.host, &id));
    if let Some(cached) = cached {
        match new_ticket(client, &id, &cached.ticket).await {
            Ok(ticket) => return Ok((Credentials::Ticket(keep(options, ticket)), true)),
            // Revoked or from a server that was set up anew: ask instead.
            Err(error) if error.status() == Some(401) => {
                tracing::debug!("the cached ticket is no longer accepted");
            }
            Err(error) => return Err(error),
        }
    }
    let prompt = options
        .password_prompt
        .clone()
        .ok_or_else(|| ClientError::MissingPassword { user: id.clone() })?;
    let auth_id = options.auth_id.clone();
    let password = tokio::task::spawn_blocking(move || prompt(&auth_id))
        .await
        .map_err(|_| ClientError::Cancelled)??;
    Ok((
        Credentials::Ticket(keep(options, with_password(client, &id, &password).await?)),
        true,
    ))
}

/// Logs in with a password, and with a second factor where the server asks for one.
async fn with_password(client: &HttpClient, user: &str, password: &str) -> Result<Ticket> {
    let pending = match request_ticket(client, user, password, None).await? {
        Reply::Ticket(ticket) => return Ok(ticket),
        Reply::Pending(pending) => pending,
    };
    let mut request = SecondFactorRequest::of_ticket(user, &pending);
    request.check_typable()?;
    let prompt = client.options().second_factor_prompt.clone();
    let prompt = prompt.ok_or_else(|| request.nobody_to_ask())?;
    for attempt in 1.. {
        let (ask, question) = (prompt.clone(), request.clone());
        let typed = tokio::task::spawn_blocking(move || ask(&question))
            .await
            .map_err(|_| ClientError::Cancelled)??;
        let refused = match request.answer(&typed) {
            None => ClientError::Invalid(format!("this is not {}", request.needed())),
            Some(answer) => match request_ticket(client, user, &answer, Some(&pending)).await {
                Ok(Reply::Ticket(ticket)) => return Ok(ticket),
                Ok(Reply::Pending(_)) => {
                    return Err(malformed("it asks for a second factor once more"));
                }
                Err(error) if error.status() == Some(401) => error,
                Err(error) => return Err(error),
            },
        };
        if attempt == ATTEMPTS {
            return Err(refused);
        }
        request.was_refused = true;
    }
    Err(ClientError::Cancelled)
}

/// Renews a ticket.
async fn new_ticket(client: &HttpClient, user: &str, old: &str) -> Result<Ticket> {
    match request_ticket(client, user, old, None).await? {
        Reply::Ticket(ticket) => Ok(ticket),
        Reply::Pending(_) => Err(malformed("it asks for a second factor to renew a ticket")),
    }
}

/// What the server answers to a login.
enum Reply {
    /// A full ticket.
    Ticket(Ticket),
    /// A ticket that waits for a second factor, and holds what is asked for.
    Pending(String),
}

/// Asks the server for a ticket: with a password, an older ticket, or the answer to the ticket `pending`.
async fn request_ticket(
    client: &HttpClient,
    user: &str,
    password: &str,
    pending: Option<&str>,
) -> Result<Reply> {
    const PATH: &str = "access/ticket";
    let mut body = json!({"username": user, "password": password});
    if let Some(pending) = pending {
        body["tfa-challenge"] = pending.into();
    }
    let body = body.to_string();
    let answer = client
        .exchange(Method::POST, PATH, "", body.into(), "application/json")
        .await?;
    parse_ticket(user, check_status(&Method::POST, PATH, answer)?)
}

fn malformed(reason: &str) -> ClientError {
    ClientError::Protocol {
        request: "the login".to_owned(),
        reason: reason.to_owned(),
    }
}

fn parse_ticket(user: &str, answer: Answer) -> Result<Reply> {
    let cookie = answer
        .headers
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(|value| value.strip_prefix(PREFIXED_COOKIE)?.strip_prefix('='))
        .and_then(|value| value.split(';').next())
        .filter(|value| !value.is_empty())
        .map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned());
    let envelope: Value =
        serde_json::from_slice(&answer.body).map_err(|_| malformed("the answer is not JSON"))?;
    let reply = data(envelope);
    let text = |key: &str| reply.get(key).and_then(Value::as_str).map(str::to_owned);
    let (ticket, cookie_name) = match (cookie, text("ticket")) {
        (Some(ticket), _) => (ticket, PREFIXED_COOKIE),
        (None, Some(ticket)) => (ticket, PLAIN_COOKIE),
        (None, None) => return Err(malformed("it contains no ticket")),
    };
    if ticket.starts_with(SecondFactorRequest::TICKET_PREFIX) {
        return Ok(Reply::Pending(ticket));
    }
    Ok(Reply::Ticket(Ticket {
        user: text("username").unwrap_or_else(|| user.to_owned()),
        ticket,
        token: text("CSRFPreventionToken").ok_or_else(|| malformed("it contains no CSRF token"))?,
        cookie_name,
    }))
}

/// Puts a new ticket into the cache, if there is one.
fn keep(options: &ClientOptions, ticket: Ticket) -> Ticket {
    if let Some(cache) = &options.ticket_cache {
        let cached = CachedTicket {
            ticket: ticket.ticket.clone(),
            token: ticket.token.clone(),
        };
        if let Err(error) = cache.store(&options.host, &ticket.user, &cached) {
            tracing::debug!(
                "unable to store the ticket in '{}' - {error}",
                cache.path().display()
            );
        }
    }
    ticket
}

/// Renews the ticket until the client is dropped. A failure is told and tried again soon: a long backup
/// outlives a short outage.
pub(crate) async fn keep_renewing(client: WeakClient) {
    let mut wait = RENEWAL_INTERVAL;
    loop {
        tokio::time::sleep(wait).await;
        let Some(client) = client.upgrade() else {
            return;
        };
        let Some(Credentials::Ticket(old)) = client.credentials() else {
            return;
        };
        wait = match new_ticket(&client, &old.user, &old.ticket).await {
            Ok(ticket) => {
                client.set_credentials(Credentials::Ticket(keep(client.options(), ticket)));
                RENEWAL_INTERVAL
            }
            Err(error) => {
                tracing::warn!("unable to renew the login ticket, trying again - {error}");
                RENEWAL_RETRY
            }
        };
    }
}

/// Logs in and stores the ticket, for the command of that name.
///
/// # Errors
/// Network, trust and login failures.
pub async fn login(options: ClientOptions) -> Result<()> {
    let client = HttpClient::without_login(options);
    log_in(&client).await.map(|_| ())
}

/// Forgets the cached ticket; tells whether there was one.
///
/// # Errors
/// Fails if the cache cannot be written.
pub fn logout(options: &ClientOptions) -> Result<bool> {
    match &options.ticket_cache {
        Some(cache) => cache
            .remove(&options.host, &options.auth_id.to_string())
            .map_err(|source| ClientError::File {
                what: "writing",
                path: cache.path().to_owned(),
                source,
            }),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn answer(cookie: Option<&'static str>, body: &Value) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(cookie) = cookie {
            headers.insert(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        Answer {
            status: StatusCode::OK,
            headers,
            body: body.to_string().into(),
        }
    }

    fn full(answer: Answer) -> Ticket {
        match parse_ticket("u@pbs", answer).unwrap() {
            Reply::Ticket(ticket) => ticket,
            Reply::Pending(ticket) => panic!("{ticket}"),
        }
    }

    #[test]
    fn a_prefixed_cookie_replaces_the_plain_one() {
        let body =
            json!({"data": {"username": "u@pbs", "ticket": "PBS:old", "CSRFPreventionToken": "c"}});
        let plain = full(answer(None, &body));
        assert_eq!(
            (plain.ticket.as_str(), plain.cookie_name),
            ("PBS:old", PLAIN_COOKIE)
        );
        let cookie = "__Host-PBSAuthCookie=PBS:new; Secure; HttpOnly";
        let prefixed = full(answer(Some(cookie), &body));
        assert_eq!(
            (prefixed.ticket.as_str(), prefixed.cookie_name),
            ("PBS:new", PREFIXED_COOKIE)
        );
    }

    #[test]
    fn an_expiring_cookie_is_not_taken_for_a_ticket() {
        let body = json!({"data": {"ticket": "PBS:x", "CSRFPreventionToken": "c"}});
        let ticket = full(answer(Some("__Host-PBSAuthCookie=; Path=/;"), &body));
        assert_eq!(ticket.ticket, "PBS:x");
    }

    #[test]
    fn a_pending_second_factor_is_told_apart_from_success() {
        let body = json!({"data": {"username": "u@pbs", "ticket": "PBS:!tfa!x", "CSRFPreventionToken": "invalid"}});
        let result = parse_ticket("u@pbs", answer(None, &body));
        assert!(matches!(result, Ok(Reply::Pending(_))));
    }

    #[test]
    fn an_answer_without_ticket_is_an_error() {
        assert!(parse_ticket("u@pbs", answer(None, &json!({"data": {}}))).is_err());
        assert!(parse_ticket("u@pbs", answer(None, &Value::Null)).is_err());
    }
}

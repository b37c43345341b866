//! Logging in: a password, or a ticket to be renewed, for a new ticket.

use std::fmt;
use std::net::IpAddr;

use backstop_types::UserId;
use backstop_types::record::TicketReply;

use super::control::AccessControl;
use super::refusal::Refused;
use super::{csrf, password, session_limit, ticket};

/// What a client sends to log in.
#[derive(Clone, Copy, Default)]
pub struct LoginRequest<'a> {
    /// `name@realm`.
    pub username: &'a str,
    /// A password, or a ticket to be renewed.
    pub password: Option<&'a str>,
    /// The ticket that waits for a second factor.
    pub tfa_challenge: Option<&'a str>,
    /// Whether the new ticket is to be sent as a cookie.
    pub http_only: bool,
    /// The ticket in the cookie that only servers set.
    pub cookie: Option<&'a str>,
    /// Where the request comes from.
    pub peer: Option<IpAddr>,
}

impl fmt::Debug for LoginRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Why nobody is logged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The request lacks something; the text may be sent to the client (400).
    #[error("{0}")]
    Incomplete(&'static str),
    /// The credentials are not accepted. The client is told `permission check failed.` (401,
    /// after 3 seconds); the text is for the authentication log.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// A successful login.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginReply {
    /// The body.
    pub record: TicketReply,
    /// The value of the `Set-Cookie` header, when the ticket is sent as a cookie.
    pub set_cookie: Option<String>,
    /// Whether the ticket only proves the password, and a second factor is asked for.
    pub is_pending: bool,
    /// Whether the user was made by this login.
    pub is_new_user: bool,
}

impl fmt::Debug for LoginReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginReply")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl AccessControl {
    /// A login ticket of `root@pam` for the tools of this installation: whoever can read the
    /// signing key may do everything anyway. `None` when the system gives no random numbers.
    #[must_use]
    pub fn issue_root_ticket(&self) -> Option<String> {
        let root = UserId::root();
        ticket::issue(
            &self.keys().ticket,
            ticket::LOGIN_PREFIX,
            root.as_str(),
            self.issue_time(&root).ok()?,
        )
    }

    /// Logs a user in.
    ///
    /// # Errors
    /// When the request is incomplete or the credentials are not accepted.
    pub fn login(&self, request: &LoginRequest<'_>) -> Result<LoginReply, LoginError> {
        let user: UserId = request
            .username
            .parse()
            .map_err(|_| Refused::of(request.username.escape_debug(), "not a valid user id"))?;
        if !self
            .is_active(&user.clone().into())
            .map_err(Refused::from)?
        {
            return Err(Refused::of(&user, "user account disabled or expired.").into());
        }
        if let Some(challenge) = request.tfa_challenge {
            let answer = request.password;
            return self.second_step(&user, challenge, answer, request.http_only);
        }
        if request.http_only
            && let Some(cookie) = request.cookie
        {
            return match (self.renew(&user, cookie), request.password) {
                (Ok(login), _) => self.reply(&user, true, Some(login)),
                // Here a ticket is no password.
                (Err(_), Some(password)) => self.with_password(&user, password, request.peer, true),
                (Err(refused), None) => Err(refused.into()),
            };
        }
        let Some(password) = request.password else {
            return Err(LoginError::Incomplete("no password provided"));
        };
        if password.starts_with("PBS:") {
            match self.ticket_login(password) {
                Ok((own, login)) if own == user => {
                    session_limit::check(self.config(), &user, login, self.now())?;
                    return self.reply(&user, request.http_only, Some(login));
                }
                Ok(_) => return Err(Refused::of(&user, "the ticket is another user's").into()),
                Err(_) => {}
            }
        }
        self.with_password(&user, password, request.peer, request.http_only)
    }

    /// When the session began that is to be renewed.
    fn renew(&self, user: &UserId, ticket: &str) -> Result<i64, Refused> {
        match self.ticket_login(ticket) {
            Ok((own, login)) if own == *user => {
                session_limit::check(self.config(), user, login, self.now())?;
                Ok(login)
            }
            Ok(_) => Err(Refused::of(user, "the ticket is another user's")),
            Err(refused) => Err(Refused::of(user, refused.reason)),
        }
    }

    fn with_password(
        &self,
        user: &UserId,
        password: &str,
        peer: Option<IpAddr>,
        http_only: bool,
    ) -> Result<LoginReply, LoginError> {
        password::check(self, user, password, peer)?;
        let now = self.now();
        match self
            .second_factors()
            .challenge(user, now)
            .map_err(Refused::from)?
        {
            None => self.reply(user, http_only, None),
            Some(challenge) => self.pending_reply(user, &challenge, now),
        }
    }

    /// Checks the second factor of a user whose password was right.
    fn second_step(
        &self,
        user: &UserId,
        ticket: &str,
        answer: Option<&str>,
        http_only: bool,
    ) -> Result<LoginReply, LoginError> {
        let answer = answer.ok_or(LoginError::Incomplete("no password provided"))?;
        let now = self.now();
        let challenge = ticket::verify_pending(&self.keys().ticket, user.as_str(), ticket, now)
            .map_err(|error| Refused::of(user, error.to_string()))?;
        self.check_revocation(user, ticket)?;
        // Wrong answers are counted with the factors, for the account.
        self.second_factors()
            .verify(user, &challenge, answer, now)?;
        self.reply(user, http_only, None)
    }

    /// The answer to a right password that is not enough. Its ticket travels in the body, also where tickets are cookies.
    fn pending_reply(
        &self,
        user: &UserId,
        challenge: &str,
        now: i64,
    ) -> Result<LoginReply, LoginError> {
        let ticket = ticket::issue_pending(&self.keys().ticket, user.as_str(), challenge, now)
            .ok_or_else(|| Refused::of(user, "unable to sign a ticket"))?;
        let record = TicketReply {
            username: user.clone(),
            ticket: Some(ticket),
            ticket_info: None,
            csrf_token: Some("invalid".to_owned()),
        };
        Ok(LoginReply {
            record,
            set_cookie: None,
            is_pending: true,
            is_new_user: false,
        })
    }

    /// The answer to a user whose login is proved; `since` is when that was, for a session that goes on.
    pub(super) fn reply(
        &self,
        user: &UserId,
        http_only: bool,
        since: Option<i64>,
    ) -> Result<LoginReply, LoginError> {
        let now = self.issue_time(user).map_err(Refused::from)?;
        let failed = || Refused::of(user, "unable to sign a ticket");
        let (key, prefix) = (&self.keys().ticket, ticket::LOGIN_PREFIX);
        let ticket = match since {
            None => ticket::issue(key, prefix, user.as_str(), now),
            Some(login) => ticket::issue_renewed(key, prefix, user.as_str(), now, login),
        }
        .ok_or_else(failed)?;
        let csrf_token = csrf::issue(&self.keys().csrf, user.as_str(), now).ok_or_else(failed)?;
        let mut record = TicketReply {
            username: user.clone(),
            ticket: None,
            ticket_info: None,
            csrf_token: Some(csrf_token),
        };
        let mut set_cookie = None;
        if http_only {
            record.ticket_info = Some(ticket::info(ticket::LOGIN_PREFIX, user.as_str(), now));
            set_cookie = Some(format!(
                "__Host-PBSAuthCookie={ticket}; Secure; SameSite=Lax; HttpOnly; Path=/;"
            ));
        } else {
            record.ticket = Some(ticket);
        }
        Ok(LoginReply {
            record,
            set_cookie,
            is_pending: false,
            is_new_user: false,
        })
    }
}

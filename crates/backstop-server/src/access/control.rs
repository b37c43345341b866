//! The one place that answers who somebody is and what they may do.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use backstop_types::acl::Permissions;
use backstop_types::section_config::SectionConfig;
use backstop_types::{AuthId, Privileges, UserId};
use serde_json::Value;

use super::append_only::Marks;
use super::hash_queue::{HashQueue, Turn};
use super::key::{AuthKeys, KeyError};
use super::openid::OpenId;
use super::outside_queue::{OutsideQueue, OutsideTurn};
use super::permissions::{self, PermissionDenied, PermissionMap};
use super::refusal::{Failure, Refused};
use super::second_factor::SecondFactors;
use super::throttle::{Attempt, Throttle};
use super::token_cache::TokenCache;
use super::{csrf, password_hash, revocation, session_limit, ticket, user};
use crate::config::{ConfigError, ConfigStore, EditError, JsonFile, SectionFile, Stamp};
use crate::privileged_helper::PrivilegedHelper;

type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Access control of a server. All methods block: they read files, and logins compute costly
/// hashes.
pub struct AccessControl {
    pub(super) config: Arc<ConfigStore>,
    keys: AuthKeys,
    tokens: TokenCache,
    hashing: HashQueue,
    outside: OutsideQueue,
    pub(super) marks: Marks,
    openid: OpenId,
    second_factors: SecondFactors,
    throttle: Throttle,
    clock: Clock,
    helper: Option<Arc<PrivilegedHelper>>,
}

impl fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessControl").finish_non_exhaustive()
    }
}

/// Why somebody who is known gets no further.
pub(super) const DISABLED: &str = "user account or token disabled or expired.";

impl AccessControl {
    /// Access control over a configuration directory; makes the server's keys when they are not
    /// there.
    ///
    /// # Errors
    /// When the keys cannot be read or made.
    pub fn open(config: Arc<ConfigStore>) -> Result<Self, KeyError> {
        let now = || {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        Self::with_clock(config, now)
    }

    /// The same with another clock (seconds since the epoch), for tests.
    ///
    /// # Errors
    /// When the keys cannot be read or made.
    pub fn with_clock(
        config: Arc<ConfigStore>,
        clock: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Result<Self, KeyError> {
        let keys = AuthKeys::load_or_create(&config)?;
        let tokens = TokenCache::new().ok_or(KeyError::NoRandomness)?;
        Ok(Self {
            second_factors: SecondFactors::new(Arc::clone(&config)),
            config,
            keys,
            tokens,
            hashing: HashQueue::default(),
            outside: OutsideQueue::default(),
            marks: Marks::default(),
            openid: OpenId::default(),
            throttle: Throttle::default(),
            clock: Arc::new(clock),
            helper: None,
        })
    }

    /// The same with the helper that system users log in with.
    #[must_use]
    pub fn with_helper(mut self, helper: Option<Arc<PrivilegedHelper>>) -> Self {
        self.helper = helper;
        self
    }

    /// The helper that checks and sets the passwords of system users.
    ///
    /// # Errors
    /// When the server was not started as root.
    pub(super) fn helper(&self) -> Result<&PrivilegedHelper, &'static str> {
        self.helper.as_deref().ok_or(
            "system users (realm pam) can log in only where the server was started as root, which it was not; use a user of \
             another realm or an API token",
        )
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<ConfigStore> {
        &self.config
    }

    /// The second factors of users.
    #[must_use]
    pub const fn second_factors(&self) -> &SecondFactors {
        &self.second_factors
    }

    pub(super) const fn keys(&self) -> &AuthKeys {
        &self.keys
    }

    pub(super) const fn openid(&self) -> &OpenId {
        &self.openid
    }

    /// Seconds since the epoch.
    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    /// Checks a login ticket, and for requests that change something (`writes`: every method but
    /// GET) the token against cross-site requests.
    ///
    /// # Errors
    /// When any of it is not in order, or the user is disabled or expired.
    pub fn check_ticket(
        &self,
        ticket: &str,
        csrf: Option<&str>,
        writes: bool,
    ) -> Result<AuthId, Refused> {
        let (user, login) = self.signed_login(ticket)?;
        if !self.is_active(&user.clone().into())? {
            return Err(Refused::of(&user, DISABLED));
        }
        self.check_revocation(&user, ticket)?;
        session_limit::check(&self.config, &user, login, self.now())?;
        if writes {
            let token = csrf.ok_or_else(|| Refused::of(&user, "missing CSRF prevention token"))?;
            csrf::verify(&self.keys.csrf, user.as_str(), token, self.now())
                .map_err(|reason| Refused::of(&user, reason))?;
        }
        Ok(user.into())
    }

    /// Whether a text is a valid login ticket, of whomever.
    #[must_use]
    pub fn is_ticket(&self, text: &str) -> bool {
        text.starts_with("PBS:") && self.ticket_login(text).is_ok()
    }

    /// The user of a valid login ticket and when that logged in, whether or not the account is in order or the session has
    /// lasted too long.
    pub(super) fn ticket_login(&self, text: &str) -> Result<(UserId, i64), Refused> {
        let (user, login) = self.signed_login(text)?;
        self.check_revocation(&user, text)?;
        Ok((user, login))
    }

    /// The same, also when the ticket is refused since some change.
    fn signed_login(&self, text: &str) -> Result<(UserId, i64), Refused> {
        let (data, login) = ticket::verify_login(&self.keys.ticket, text, self.now())
            .map_err(|error| Refused::new(error.to_string()))?;
        // A ticket that waits for a second factor holds a challenge here.
        let user: UserId = data
            .parse()
            .map_err(|_| Refused::new("invalid ticket - not a full login ticket"))?;
        Ok((user, login))
    }

    /// Checks a ticket for a terminal, and that whom it is for has a privilege at its path. Blocking.
    ///
    /// # Errors
    /// When the ticket is not good for all of this, the account is not in order, or the privilege is missing.
    pub fn check_terminal_ticket(
        &self,
        auth_id: &AuthId,
        ticket: &str,
        (path, privilege, port): (&str, &str, u16),
    ) -> Result<(), Refused> {
        let id = auth_id.to_string();
        // First, so that a forged ticket takes as long for accounts that are there as for others.
        ticket::verify_terminal(&self.keys.ticket, &id, path, port, ticket, self.now())
            .map_err(|error| Refused::of(&id, error.to_string()))?;
        if !self.is_active(auth_id)? {
            return Err(Refused::of(&id, DISABLED));
        }
        let known = Privileges::NAMES
            .iter()
            .find(|(_, name)| *name == privilege)
            .map(|(privilege, _)| *privilege)
            .ok_or_else(|| Refused::of(&id, "No such privilege"))?;
        self.check(auth_id, path, known, false)
            .map_err(|denied| Refused::of(&id, denied.to_string()))
    }

    /// Refuses a ticket from before its user's sessions were ended.
    pub(super) fn check_revocation(&self, user: &UserId, ticket: &str) -> Result<(), Refused> {
        match (self.revoked_until(user)?, ticket::issued_at(ticket)) {
            (None, _) => Ok(()),
            (Some(until), Some(issued)) if issued > until => Ok(()),
            _ => Err(Refused::of(
                user,
                "invalid ticket - the user's sessions were ended after it was issued, by a change of the password or of the account",
            )),
        }
    }

    fn revoked_until(&self, user: &UserId) -> Result<Option<i64>, ConfigError> {
        // Nobody has changed a password lately: the usual case.
        if self.config.json_stamp(JsonFile::Revocations)?.is_none() {
            return Ok(None);
        }
        let times = self.config.json(JsonFile::Revocations)?;
        Ok(revocation::revoked_until(&times, user))
    }

    /// Refuses all tickets of `user` that were issued up to now.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub(super) fn revoke_tickets(&self, user: &UserId) -> Result<(), ConfigError> {
        revocation::revoke(&self.config, user, self.now())
    }

    /// The time for a new ticket of `user`: now, or right after what was revoked in this second.
    pub(super) fn issue_time(&self, user: &UserId) -> Result<i64, ConfigError> {
        let after = self
            .revoked_until(user)?
            .map_or(i64::MIN, |until| until + 1);
        Ok(self.now().max(after))
    }

    /// Makes an attempt to prove something with a secret, unless there were too many failed ones.
    ///
    /// # Errors
    /// What `attempt` reports, or that it is too early.
    pub(super) fn limited<T, E: Failure>(
        &self,
        kind: Attempt,
        peer: Option<IpAddr>,
        account: &str,
        attempt: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if let Err(seconds) = self.throttle.check(kind, peer, account, self.now()) {
            let reason =
                format!("too many failed attempts from this address, try again in {seconds} s");
            return Err(Refused::unchecked(account, reason).into());
        }
        let result = attempt();
        if result.as_ref().err().is_none_or(Failure::is_wrong) {
            let good = result.is_ok();
            self.throttle.note(kind, peer, account, good, self.now());
        }
        result
    }

    /// Checks an API token.
    ///
    /// # Errors
    /// When there is no such token, its secret is another, or it or its user is disabled or
    /// expired.
    pub fn check_token(&self, auth_id: &str, secret: &str) -> Result<AuthId, Refused> {
        self.check_token_from(None, auth_id, secret)
    }

    /// The same for a request from an address, whose failures are counted.
    ///
    /// # Errors
    /// As [`Self::check_token`], or when too many attempts from there failed.
    pub fn check_token_from(
        &self,
        peer: Option<IpAddr>,
        auth_id: &str,
        secret: &str,
    ) -> Result<AuthId, Refused> {
        let token: AuthId = auth_id
            .parse()
            .map_err(|_| Refused::new("not a valid user id"))?;
        if !token.is_token() {
            return Err(Refused::of(&token, "not an API token ID"));
        }
        if !self.is_active(&token)? {
            return Err(Refused::of(&token, DISABLED));
        }
        let stamp = self.config.json_stamp(JsonFile::TokenShadow)?;
        if self.tokens.contains(&token, secret, stamp) {
            return Ok(token);
        }
        let account = token.to_string();
        self.limited(Attempt::Token, peer, &account, || {
            self.check_token_hash(&token, secret, stamp)
        })?;
        Ok(token)
    }

    fn check_token_hash(
        &self,
        token: &AuthId,
        secret: &str,
        stamp: Option<Stamp>,
    ) -> Result<(), Refused> {
        let _turn = self.hashing_turn(token)?;
        // While this request waited, another may have checked the same secret.
        if self.tokens.contains(token, secret, stamp) {
            return Ok(());
        }
        let shadow = self.config.json(JsonFile::TokenShadow)?;
        let hash = shadow.get(&token.to_string()).and_then(Value::as_str);
        let hash = hash.ok_or_else(|| Refused::of(token, "invalid API token"))?;
        if !password_hash::verify(secret, hash) {
            return Err(Refused::of(token, "invalid credentials"));
        }
        // The stamp was taken before the file was read: had it changed in between, the entry
        // would not be found again.
        self.tokens.insert(token, secret, stamp);
        Ok(())
    }

    /// Waits for the right to compute a password hash for `auth_id`.
    pub(super) fn hashing_turn(&self, auth_id: impl ToString) -> Result<Turn<'_>, Refused> {
        self.hashing
            .wait()
            .ok_or_else(|| Refused::unchecked(auth_id, "too many logins at once, try again later"))
    }

    /// Waits, without blocking, for the right to log in a user whose password is checked outside of this process.
    /// Passwords of the realm `pbs` are not.
    ///
    /// # Errors
    /// When too many wait already.
    pub async fn outside_turn(&self, username: &str) -> Result<Option<OutsideTurn>, Refused> {
        let realm = username.rsplit_once('@').map_or("", |(_, realm)| realm);
        if realm == "pbs" {
            return Ok(None);
        }
        match self.outside.wait(realm).await {
            Some(turn) => Ok(Some(turn)),
            None => Err(Refused::of(
                username.escape_debug(),
                format!(
                    "too many logins of the realm '{}' at once, try again later",
                    realm.escape_debug()
                ),
            )),
        }
    }

    /// Whether a user or token exists, is enabled and has not expired; for a token also its user.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub fn is_active(&self, auth_id: &AuthId) -> Result<bool, ConfigError> {
        let users = self.config.sections(SectionFile::User)?;
        let now = self.now();
        let user = auth_id.user();
        let user_is_active = match is_usable(&users.data, "user", user.as_str(), now) {
            // `root@pam` is there without an entry, too.
            None => user.is_root(),
            Some(usable) => usable,
        };
        let token_is_active = !auth_id.is_token()
            || is_usable(&users.data, "token", &auth_id.to_string(), now) == Some(true);
        Ok(user_is_active && token_is_active)
    }

    /// What `auth_id` may do at `path`.
    ///
    /// # Errors
    /// When the access rules cannot be read.
    pub fn permissions(&self, auth_id: &AuthId, path: &str) -> Result<Permissions, ConfigError> {
        let most = self.most(auth_id);
        let granted = self.config.acl()?.data.permissions(auth_id, path);
        Ok(Permissions {
            privileges: granted.privileges & most,
            propagated: granted.propagated & most,
        })
    }

    /// Checks privileges at a path; with `any`, one of them is enough.
    ///
    /// # Errors
    /// When one is missing. Access rules that cannot be read grant nothing except to `root@pam`.
    pub fn check(
        &self,
        auth_id: &AuthId,
        path: &str,
        privileges: Privileges,
        any: bool,
    ) -> Result<(), PermissionDenied> {
        if auth_id.is_root() {
            return Ok(());
        }
        match self.permissions(auth_id, path) {
            Ok(held) => permissions::check(held.privileges, path, privileges, any),
            Err(error) => {
                tracing::error!("no permissions are granted: {error}");
                Err(PermissionDenied {
                    privileges,
                    path: path.to_string(),
                })
            }
        }
    }

    /// Whether `auth_id` holds one of `privileges` at `path` or anywhere below it.
    ///
    /// # Errors
    /// When the access rules cannot be read.
    pub fn any_below(
        &self,
        auth_id: &AuthId,
        path: &str,
        privileges: Privileges,
    ) -> Result<bool, ConfigError> {
        let privileges = privileges & self.most(auth_id);
        Ok(auth_id.is_root() || self.config.acl()?.data.any_below(auth_id, path, privileges))
    }

    /// The overview of what `auth_id` may do: at `path`, or at all paths that rules name.
    ///
    /// # Errors
    /// When the access rules cannot be read.
    pub fn permission_map(
        &self,
        auth_id: &AuthId,
        path: Option<&str>,
    ) -> Result<PermissionMap, ConfigError> {
        Ok(permissions::overview(
            &self.config.acl()?.data,
            auth_id,
            self.most(auth_id),
            path,
        ))
    }

    /// The same on behalf of `caller`, who may ask for itself, a user also for its own tokens,
    /// and others with the privilege to see permissions.
    ///
    /// # Errors
    /// When the caller may not ask, or the access rules cannot be read.
    pub fn permission_map_for(
        &self,
        caller: &AuthId,
        auth_id: &AuthId,
        path: Option<&str>,
    ) -> Result<PermissionMap, EditError> {
        let is_own = caller == auth_id || (!caller.is_token() && caller.user() == auth_id.user());
        if !is_own
            && self
                .check(caller, "/access", Privileges::SYS_AUDIT, false)
                .is_err()
        {
            return Err(EditError::Conflict(format!(
                "not allowed to list permissions of {auth_id}"
            )));
        }
        Ok(self.permission_map(auth_id, path)?)
    }
}

/// Whether an entry may be used now; `None` when it is not there.
fn is_usable(users: &SectionConfig, ty: &str, id: &str, now: i64) -> Option<bool> {
    let properties = &users.get_typed(ty, id)?.properties;
    Some(user::may_log_in(properties, now))
}

#[cfg(test)]
mod defence_tests;
#[cfg(test)]
pub(super) mod tests;

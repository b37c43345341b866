//! Directory servers (LDAP and Active Directory): checking the passwords of users, and listing users.
//! Format of the settings: `docs/formats/configuration.md`.
//!
//! A password is only ever right when the server has accepted it in a bind with the user's own name: a bind without a
//! password or without a name, which servers may accept from anybody, is never made. Names are escaped before they
//! become part of a filter. Passwords appear in no error.

mod error;
mod session;
mod settings;
mod user_search;

use std::future::Future;
use std::time::Duration;

use backstop_types::UserId;

pub use error::DirectoryError;
pub use settings::{DirectoryKind, DirectorySettings, stored_password};
pub use user_search::{DirectoryUser, UserSearch};

use self::session::Session;
use super::refusal::Refused;
use crate::config::ConfigStore;

/// How long a login may take, whatever the servers do.
const LOGIN_LIMIT: Duration = Duration::from_secs(20);

/// Checks that the directory can be used with these settings: that it accepts the connection and the name to bind with,
/// and has the base.
///
/// # Errors
/// What does not work.
pub async fn test(settings: &DirectorySettings) -> Result<(), DirectoryError> {
    Session::open(settings).await?.check_base().await
}

/// Asks an Active Directory for the base of its users.
///
/// # Errors
/// When it cannot be asked, or does not say.
pub async fn default_base(settings: &DirectorySettings) -> Result<String, DirectoryError> {
    Session::connect(settings).await?.default_base().await
}

/// Checks a user's password: looks the user up, and binds with what was found.
///
/// # Errors
/// When the password is not the user's, or that cannot be found out.
pub async fn check_password(
    settings: &DirectorySettings,
    name: &str,
    password: &str,
) -> Result<(), DirectoryError> {
    if password.is_empty() {
        return Err(DirectoryError::NoPassword);
    }
    let check = async {
        let mut session = Session::open(settings).await?;
        let dn = session.find(name).await?;
        session.bind_user(&dn, password).await
    };
    tokio::time::timeout(LOGIN_LIMIT, check)
        .await
        .unwrap_or(Err(DirectoryError::TooSlow {
            seconds: LOGIN_LIMIT.as_secs(),
        }))
}

/// The users that the directory knows.
///
/// # Errors
/// When not all of them could be read.
pub async fn users(
    settings: &DirectorySettings,
    search: &UserSearch,
) -> Result<Vec<DirectoryUser>, DirectoryError> {
    Session::open(settings).await?.users(search).await
}

/// Checks a user's password at the directory of its realm. Blocking: for threads that may.
pub(super) fn check(config: &ConfigStore, user: &UserId, password: &str) -> Result<(), Refused> {
    let text = |err: &dyn std::error::Error| crate::http::error::chain(err);
    let settings = DirectorySettings::of_realm(config, user.realm())
        .map_err(|err| Refused::unchecked(user, text(&err)))?;
    wait(check_password(&settings, user.name(), password)).map_err(|err| match err {
        // The password was not looked at.
        DirectoryError::Unreachable(_)
        | DirectoryError::Bind { .. }
        | DirectoryError::TooSlow { .. } => Refused::unchecked(user, text(&err)),
        err => Refused::of(user, text(&err)),
    })
}

/// Waits for a future on a thread that may block: of the runtime that it belongs to, or of one made for this.
pub(super) fn wait<T>(
    future: impl Future<Output = Result<T, DirectoryError>>,
) -> Result<T, DirectoryError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.block_on(future),
        Err(_) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DirectoryError::NoRuntime)?
            .block_on(future),
    }
}

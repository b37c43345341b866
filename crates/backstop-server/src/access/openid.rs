//! Logins at OpenID Connect providers: the authorization code flow with PKCE.
//!
//! Whoever comes back from a provider must bring the state that this server gave out, once and in time. Nothing of an ID
//! token counts before its signature, issuer, audience, nonce and time were checked.

mod claims;
mod http_client;
mod pending;
mod provider;

use std::net::IpAddr;

use backstop_types::config_schema::access::USER;
use backstop_types::{AuthId, UserId};
use serde_json::{Map, Value};

use super::control::{AccessControl, DISABLED};
use super::login::{LoginError, LoginReply};
use super::refusal::Refused;
use super::user;
use crate::config::{ConfigStore, EditError, SectionFile};

pub use claims::Claims;
pub use pending::PendingLogin;

use backstop_outgoing::Route;
use http_client::route_of_host;
use pending::PendingLogins;
use provider::Providers;

/// The claim that names a user unless the realm says otherwise.
const DEFAULT_CLAIM: &str = "sub";

/// Why nobody is logged in at a provider, or sent there. The text is told to the caller, and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum OpenIdError {
    /// The provider's description cannot be had.
    #[error("unable to ask the OpenID provider '{issuer}' - {reason}; check issuer-url")]
    Provider {
        /// Its URL.
        issuer: String,
        /// Why.
        reason: String,
    },
    /// The settings of the realm or the request make no sense.
    #[error("{0}")]
    Invalid(String),
    /// Too many wait already.
    #[error("too many pending OpenID logins, try again later")]
    TooMany,
    /// Nobody was sent to a provider with this state, or too long ago, or somebody has come back with it already.
    #[error(
        "no OpenID login waits for this answer - it took longer than 10 minutes, or was used already; log in again"
    )]
    UnknownState,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The provider does not give a token for the code.
    #[error("the OpenID provider does not accept the authorization code - {0}")]
    Code(String),
    /// The token proves nothing.
    #[error("the ID token of the OpenID provider is not valid - {0}")]
    Token(String),
    /// The provider does not tell about the user.
    #[error("the OpenID provider does not tell about the user - {0}")]
    UserInfo(String),
}

/// A realm's provider. `Debug` hides the key.
#[derive(Clone)]
pub struct OpenIdSettings {
    realm: String,
    issuer: String,
    client_id: String,
    client_key: Option<String>,
    scopes: Vec<String>,
    acr_values: Vec<String>,
    audiences: Vec<String>,
    prompt: Option<String>,
    claim: String,
    autocreate: bool,
    route: Route,
}

impl std::fmt::Debug for OpenIdSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenIdSettings")
            .field("realm", &self.realm)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl OpenIdSettings {
    /// The settings of a realm.
    ///
    /// # Errors
    /// When there is no such realm of this kind, or the configuration cannot be read.
    pub fn of_realm(config: &ConfigStore, realm: &str) -> Result<Self, EditError> {
        let domains = config.sections(SectionFile::Domains)?;
        let section = domains
            .data
            .get_typed("openid", realm)
            .ok_or_else(|| EditError::Conflict(format!("no such openid '{realm}'")))?;
        let route = route_of_host(config)?;
        Ok(Self::new(realm, &section.properties, route))
    }

    fn new(realm: &str, properties: &Map<String, Value>, route: Route) -> Self {
        let text = |key: &str| {
            let value = properties.get(key).and_then(Value::as_str);
            value.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let list = |key: &str, default: &str| -> Vec<String> {
            let value = text(key).unwrap_or_else(|| default.to_owned());
            let words = value.split(|c: char| matches!(c, ',' | ';') || c.is_whitespace());
            words
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        Self {
            realm: realm.to_owned(),
            issuer: text("issuer-url").unwrap_or_default(),
            client_id: text("client-id").unwrap_or_default(),
            client_key: text("client-key"),
            scopes: list("scopes", "email profile"),
            acr_values: list("acr-values", ""),
            audiences: list("audiences", ""),
            prompt: text("prompt"),
            claim: text("username-claim").unwrap_or_else(|| DEFAULT_CLAIM.to_owned()),
            autocreate: properties
                .get("autocreate")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            route,
        }
    }

    /// The name of the user, without the realm.
    fn user_name<'a>(&self, claims: &'a Claims) -> Result<&'a str, Refused> {
        // Some older realms say it in these words.
        let other = match self.claim.as_str() {
            "subject" => Some("sub"),
            "username" => Some("preferred_username"),
            _ => None,
        };
        claims
            .text(&self.claim)
            .or_else(|| claims.text(other?))
            .ok_or_else(|| Refused::new(format!("missing claim '{}'", self.claim)))
    }
}

/// Logins at OpenID providers.
#[derive(Debug, Default)]
pub(super) struct OpenId {
    pending: PendingLogins,
    providers: Providers,
}

impl AccessControl {
    /// The address at the provider to which a client that came from `peer` is sent.
    ///
    /// # Errors
    /// When the provider cannot be asked, or too many logins wait already.
    pub async fn openid_auth_url(
        &self,
        settings: &OpenIdSettings,
        redirect_url: &str,
        peer: IpAddr,
    ) -> Result<String, OpenIdError> {
        let OpenId { pending, providers } = self.openid();
        let client = providers.client(settings, redirect_url).await?;
        let login = PendingLogin::new(&settings.realm, redirect_url, self.now())?;
        let url = provider::auth_url(&client, settings, &login);
        pending.insert(login, peer, self.now())?;
        Ok(url)
    }

    /// The login that waits for `state`, which waits no longer.
    ///
    /// # Errors
    /// When there is none, or it began with another redirect URL.
    pub fn openid_pending(
        &self,
        state: &str,
        redirect_url: &str,
    ) -> Result<PendingLogin, OpenIdError> {
        let login = self.openid().pending.take(state, self.now())?;
        if login.redirect_url() == redirect_url {
            Ok(login)
        } else {
            Err(OpenIdError::Invalid(
                "the redirect URL is not the one that the login began with".to_owned(),
            ))
        }
    }

    /// What the provider says of the user who came back with `code`.
    ///
    /// # Errors
    /// When the provider does not confirm it, or its token is not valid.
    pub async fn openid_claims(
        &self,
        settings: &OpenIdSettings,
        login: &PendingLogin,
        code: &str,
    ) -> Result<Claims, OpenIdError> {
        let providers = &self.openid().providers;
        let client = providers.client(settings, login.redirect_url()).await?;
        providers.claims(&client, settings, login, code).await
    }

    /// Logs a user in of whom a provider has said who it is. Blocking.
    ///
    /// # Errors
    /// When the user is unknown and not to be created, or disabled or expired.
    pub fn openid_login(
        &self,
        settings: &OpenIdSettings,
        claims: &Claims,
        http_only: bool,
    ) -> Result<LoginReply, LoginError> {
        let name = settings.user_name(claims)?;
        let id = format!("{name}@{}", settings.realm);
        let user: UserId = id
            .parse()
            .map_err(|_| Refused::of(id.escape_debug(), "not a valid user id"))?;
        let users = self
            .config()
            .sections(SectionFile::User)
            .map_err(Refused::from)?;
        let is_known = users.data.get_typed("user", user.as_str()).is_some();
        let is_new_user = !is_known && settings.autocreate;
        if is_new_user {
            create(self.config(), &user, claims)?;
        }
        let auth_id: AuthId = user.clone().into();
        if !self.is_active(&auth_id).map_err(Refused::from)? {
            let reason = if is_known {
                DISABLED.to_owned()
            } else {
                "there is no such user, and the realm does not create any (autocreate)".to_owned()
            };
            return Err(Refused::of(&user, reason).into());
        }
        let reply = self.reply(&user, http_only, None)?;
        Ok(LoginReply {
            is_new_user,
            ..reply
        })
    }
}

fn create(config: &ConfigStore, user: &UserId, claims: &Claims) -> Result<(), Refused> {
    let pairs = [
        ("firstname", "given_name"),
        ("lastname", "family_name"),
        ("email", "email"),
    ];
    let known = pairs.into_iter().filter_map(|(key, claim)| {
        let value = claims.text(claim)?;
        let fits = USER.get(key)?.schema.parse_text(value).is_ok();
        fits.then(|| (key.to_owned(), Value::String(value.to_owned())))
    });
    user::create(config, user, known.collect(), None)
        .map_err(|err| Refused::of(user, format!("unable to create the user - {err}")))
}

#[cfg(test)]
mod tests;

//! What a provider says of itself, and what is asked of it.
//!
//! Tokens are checked by the crate `openidconnect`, which brings code for signatures of its own beside this program's
//! AWS-LC: it only ever meets public keys here, and a second implementation of these checks would be the greater risk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreClientAuthMethod,
    CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AuthType, AuthenticationContextClass, AuthorizationCode, Client, ClientId,
    ClientSecret, CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet,
    IdTokenFields, IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope, StandardErrorResponse, StandardTokenResponse, UserInfoClaims,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::http_client::ProviderHttp;
use super::{Claims, OpenIdError, OpenIdSettings, PendingLogin};
use crate::http::error::chain;

/// How long the description of a provider is good for. It is asked for by whoever wants to log in.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// Most providers that are remembered.
const MAX_KNOWN: usize = 64;
/// Most providers that are asked at once.
const MAX_RUNNING: usize = 16;

/// Claims that the standard does not name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct OtherClaims(Map<String, Value>);

impl AdditionalClaims for OtherClaims {}

type TokenFields = IdTokenFields<
    OtherClaims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

/// This server as a client of a provider.
pub(super) type ProviderClient = Client<
    OtherClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<TokenFields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// The providers that were asked lately.
#[derive(Debug)]
pub(super) struct Providers {
    known: Mutex<HashMap<String, (Instant, Arc<CoreProviderMetadata>)>>,
    running: Semaphore,
}

impl Default for Providers {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            running: Semaphore::new(MAX_RUNNING),
        }
    }
}

impl Providers {
    /// The client of a realm's provider, whose description is asked for when it is not known.
    pub(super) async fn client(
        &self,
        settings: &OpenIdSettings,
        redirect_url: &str,
    ) -> Result<ProviderClient, OpenIdError> {
        let redirect_url = RedirectUrl::new(redirect_url.to_owned())
            .map_err(|err| OpenIdError::Invalid(format!("redirect-url: {}", chain(&err))))?;
        let metadata = self.metadata(settings).await?;
        let methods = metadata.token_endpoint_auth_methods_supported();
        let takes = |method| methods.is_some_and(|methods| methods.contains(&method));
        let wants_body = takes(CoreClientAuthMethod::ClientSecretPost)
            && !takes(CoreClientAuthMethod::ClientSecretBasic);
        let client = ProviderClient::from_provider_metadata(
            (*metadata).clone(),
            ClientId::new(settings.client_id.clone()),
            settings.client_key.clone().map(ClientSecret::new),
        )
        .set_redirect_uri(redirect_url);
        Ok(if wants_body {
            client.set_auth_type(AuthType::RequestBody)
        } else {
            client
        })
    }

    async fn metadata(
        &self,
        settings: &OpenIdSettings,
    ) -> Result<Arc<CoreProviderMetadata>, OpenIdError> {
        let failed = |reason: String| OpenIdError::Provider {
            issuer: settings.issuer.clone(),
            reason,
        };
        if let Some((since, known)) = self.known.lock().get(&settings.issuer)
            && since.elapsed() < GOOD_FOR
        {
            return Ok(Arc::clone(known));
        }
        let _turn = self.turn()?;
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|err| failed(chain(&err)))?;
        let found = CoreProviderMetadata::discover_async(
            issuer,
            &ProviderHttp::new(settings.route.clone()),
        )
        .await;
        let found = Arc::new(found.map_err(|err| failed(chain(&err)))?);
        let mut known = self.known.lock();
        known.retain(|_, (since, _)| since.elapsed() < GOOD_FOR);
        if known.len() < MAX_KNOWN {
            known.insert(
                settings.issuer.clone(),
                (Instant::now(), Arc::clone(&found)),
            );
        }
        Ok(found)
    }

    /// The right to ask a provider something.
    fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, OpenIdError> {
        self.running.try_acquire().map_err(|_| OpenIdError::TooMany)
    }

    /// Exchanges the code for a token, checks it, and asks for more about the user.
    pub(super) async fn claims(
        &self,
        client: &ProviderClient,
        settings: &OpenIdSettings,
        login: &PendingLogin,
        code: &str,
    ) -> Result<Claims, OpenIdError> {
        let _turn = self.turn()?;
        let http = ProviderHttp::new(settings.route.clone());
        let token = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|err| OpenIdError::Code(chain(&err)))?
            .set_pkce_verifier(PkceCodeVerifier::new(login.verifier().to_owned()))
            .request_async(&http)
            .await
            .map_err(|err| OpenIdError::Code(chain(&err)))?;
        let verifier = client
            .id_token_verifier()
            .require_audience_match(true)
            .set_other_audience_verifier_fn(|audience| {
                settings.audiences.iter().any(|own| *own == **audience)
            });
        let id_token = token
            .extra_fields()
            .id_token()
            .ok_or_else(|| OpenIdError::Token("there is none in the answer".to_owned()))?;
        let checked = id_token
            .claims(&verifier, &Nonce::new(login.nonce().to_owned()))
            .map_err(|err| OpenIdError::Token(chain(&err)))?;
        let subject = checked.subject().clone();
        let said = object(serde_json::to_value(checked));
        if client.user_info_url().is_none() {
            return Ok(Claims::merged(said, Map::new()));
        }
        let told: UserInfoClaims<OtherClaims, CoreGenderClaim> = client
            .user_info(token.access_token().clone(), Some(subject))
            .map_err(|err| OpenIdError::UserInfo(chain(&err)))?
            .request_async(&http)
            .await
            .map_err(|err| OpenIdError::UserInfo(chain(&err)))?;
        Ok(Claims::merged(said, object(serde_json::to_value(told))))
    }
}

fn object(value: serde_json::Result<Value>) -> Map<String, Value> {
    match value {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The address to which a client is sent.
pub(super) fn auth_url(
    client: &ProviderClient,
    settings: &OpenIdSettings,
    login: &PendingLogin,
) -> String {
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(
        login.verifier().to_owned(),
    ));
    let (state, nonce) = (login.state(), login.nonce().to_owned());
    let mut request = client
        .authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            move || CsrfToken::new(state),
            move || Nonce::new(nonce),
        )
        .set_pkce_challenge(challenge)
        .set_display(CoreAuthDisplay::Page);
    if let Some(prompt) = &settings.prompt {
        request = request.add_prompt(match prompt.as_str() {
            "none" => CoreAuthPrompt::None,
            "login" => CoreAuthPrompt::Login,
            "consent" => CoreAuthPrompt::Consent,
            "select_account" => CoreAuthPrompt::SelectAccount,
            other => CoreAuthPrompt::Extension(other.to_owned()),
        });
    }
    for scope in settings.scopes.iter().filter(|scope| *scope != "openid") {
        request = request.add_scope(Scope::new(scope.clone()));
    }
    for value in &settings.acr_values {
        request = request.add_auth_context_value(AuthenticationContextClass::new(value.clone()));
    }
    request.url().0.to_string()
}

//! Requests to OpenID providers: HTTP/1.1, over TLS unless the realm's URL says otherwise. Redirects are not followed, and
//! neither time nor size of an answer is unbounded.

use std::future::Future;
use std::pin::Pin;

use backstop_outgoing::http_client::Excess;
use backstop_outgoing::{HttpClient, RequestError, Route};
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};

use crate::config::remote::node_proxy;
use crate::config::{ConfigStore, EditError};

/// Most bytes that are read of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// The route that the environment and the settings of this host ask for.
///
/// # Errors
/// When a proxy makes no sense.
pub(super) fn route_of_host(config: &ConfigStore) -> Result<Route, EditError> {
    Route::of_host(node_proxy(config)?).map_err(|err| EditError::Conflict(err.to_string()))
}

/// Makes requests.
#[derive(Debug)]
pub(super) struct ProviderHttp(HttpClient);

impl ProviderHttp {
    pub(super) fn new(route: Route) -> Self {
        Self(HttpClient {
            route,
            max_answer: MAX_ANSWER,
            excess: Excess::Refuse,
            ..HttpClient::default()
        })
    }
}

impl<'c> AsyncHttpClient<'c> for ProviderHttp {
    type Error = RequestError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, RequestError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.0.send(request))
    }
}

//! `/config/remote/{name}/scan`: what a remote shows of itself to the account that is used there.
//!
//! The answers come from another server, so that they are parsed and written anew.

use backstop_client::HttpClient;
use backstop_client::api::DatastoreApi;
use backstop_types::config_schema::value;
use backstop_types::record::{DatastoreListItem, GroupItem, NamespaceItem};
use backstop_types::schema::Property;
use backstop_types::{Namespace, Privileges};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::remote::NAME;
use crate::api::edit_error;
use crate::http::error::chain;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const REMOTE: &[Property] = &[NAME];
const STORE: Property = Property::required("store", &value::CONFIG_ID);
const NAMESPACES: &[Property] = &[NAME, STORE];
const GROUPS: &[Property] = &[
    NAME,
    STORE,
    Property::optional("namespace", &value::NAMESPACE),
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let endpoint = |path, about, params, handler| Endpoint {
        method: Method::Get,
        path,
        about,
        params,
        permission: Permission::all("/remote/{name}", Privileges::REMOTE_AUDIT),
        handler,
    };
    vec![
        endpoint(
            "/config/remote/{name}/scan",
            "The datastores that a remote shows.",
            REMOTE,
            Handler::future(datastores),
        ),
        endpoint(
            "/config/remote/{name}/scan/{store}/namespaces",
            "The namespaces that a remote shows.",
            NAMESPACES,
            Handler::future(namespaces),
        ),
        endpoint(
            "/config/remote/{name}/scan/{store}/groups",
            "The groups that a remote shows in a namespace.",
            GROUPS,
            Handler::future(groups),
        ),
    ]
}

/// A remote that is being asked.
struct Scan {
    name: String,
    client: HttpClient,
}

impl Scan {
    async fn connect(context: &RequestContext, params: &Params) -> Result<Self, ApiError> {
        let name = params.required_text("name")?.to_owned();
        let (server, wanted) = (context.server().clone(), name.clone());
        let account = tokio::task::spawn_blocking(move || server.remote_account(&wanted))
            .await
            .map_err(|_| ApiError::bad_request("the server is shutting down"))?
            .map_err(edit_error)?;
        let client = HttpClient::connect(account.client_options()).await;
        let client = client.map_err(|err| {
            let host = &account.host;
            let reason = format!("remote connection to '{host}' failed - {}", chain(&err));
            failed(&name, &reason)
        })?;
        Ok(Self { name, client })
    }

    /// The answer to a call, in the form that this server gives it.
    fn answer<T: DeserializeOwned + serde::Serialize>(
        &self,
        answer: backstop_client::Result<Value>,
    ) -> Result<Reply, ApiError> {
        let value = answer.map_err(|err| failed(&self.name, &chain(&err)))?;
        let items: Vec<T> = serde_json::from_value(value)
            .map_err(|err| failed(&self.name, &format!("its answer makes no sense - {err}")))?;
        Reply::data(&items)
    }
}

fn failed(name: &str, reason: &str) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("failed to scan remote '{name}' - {reason}"),
    )
}

async fn datastores(context: RequestContext, params: Params) -> Result<Reply, ApiError> {
    let scan = Scan::connect(&context, &params).await?;
    let answer = scan.client.get("admin/datastore", Value::Null).await;
    scan.answer::<DatastoreListItem>(answer)
}

async fn namespaces(context: RequestContext, params: Params) -> Result<Reply, ApiError> {
    let scan = Scan::connect(&context, &params).await?;
    let store = DatastoreApi::new(scan.client.clone(), params.required_text("store")?);
    let answer = store.namespaces(&Namespace::root(), None).await;
    let answer = answer.map(|mut envelope| envelope["data"].take());
    scan.answer::<NamespaceItem>(answer)
}

async fn groups(context: RequestContext, params: Params) -> Result<Reply, ApiError> {
    let ns = params.parse("namespace")?.unwrap_or_else(Namespace::root);
    let scan = Scan::connect(&context, &params).await?;
    let store = DatastoreApi::new(scan.client.clone(), params.required_text("store")?);
    scan.answer::<GroupItem>(store.groups(&ns).await)
}

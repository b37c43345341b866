//! The REST calls that commands need, by name.
//!
//! Thin: parameters in, the server's `data` out. No permission or name is second-guessed here.

use backstop_types::{BackupGroup, Namespace, Snapshot};
use bytes::Bytes;
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::connection::{HttpClient, encode_path_component};
use crate::error::Result;

/// Calls on one datastore.
#[derive(Clone)]
pub struct DatastoreApi {
    client: HttpClient,
    base: String,
}

/// Parameters that name a snapshot.
fn snapshot_params(namespace: &Namespace, snapshot: &Snapshot) -> Map<String, Value> {
    let mut params = group_params(namespace, &snapshot.group);
    params.insert("backup-time".to_owned(), snapshot.time.epoch().into());
    params
}

/// Parameters that name a group. The root namespace is left out, as old servers do not know the parameter.
fn group_params(namespace: &Namespace, group: &BackupGroup) -> Map<String, Value> {
    let mut params = namespace_params(namespace);
    params.insert("backup-type".to_owned(), group.ty.to_string().into());
    params.insert("backup-id".to_owned(), group.id.to_string().into());
    params
}

fn namespace_params(namespace: &Namespace) -> Map<String, Value> {
    let mut params = Map::new();
    if !namespace.is_root() {
        params.insert("ns".to_owned(), namespace.to_string().into());
    }
    params
}

/// Adds members of `extra` that are not null.
fn with(mut params: Map<String, Value>, extra: Value) -> Value {
    if let Value::Object(extra) = extra {
        params.extend(extra.into_iter().filter(|(_, value)| !value.is_null()));
    }
    Value::Object(params)
}

impl DatastoreApi {
    /// Calls on the datastore of this name.
    pub fn new(client: HttpClient, datastore: &str) -> Self {
        Self {
            client,
            base: format!("admin/datastore/{}", encode_path_component(datastore)),
        }
    }

    fn path(&self, call: &str) -> String {
        format!("{}/{call}", self.base)
    }

    /// Groups of a namespace.
    ///
    /// # Errors
    /// As [`HttpClient::get`]; so for all calls here.
    pub async fn groups(&self, namespace: &Namespace) -> Result<Value> {
        let params = Value::Object(namespace_params(namespace));
        self.client.get(&self.path("groups"), params).await
    }

    /// Removes a group with all its snapshots. Servers from 3.2.11 on know `error_on_protected`, whether protected snapshots
    /// are an error.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn forget_group(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        error_on_protected: Option<bool>,
    ) -> Result<Value> {
        let params = with(
            group_params(namespace, group),
            json!({"error-on-protected": error_on_protected}),
        );
        self.client.delete(&self.path("groups"), params).await
    }

    /// Moves a group to another namespace; returns the UPID of the task.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn move_group(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        target: &Namespace,
        merge: Option<bool>,
    ) -> Result<Value> {
        let params = with(
            group_params(namespace, group),
            json!({"target-ns": target.to_string(), "merge-group": merge}),
        );
        self.client.post(&self.path("move-group"), params).await
    }

    /// Gives a group to another owner.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn change_owner(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        new_owner: &str,
    ) -> Result<Value> {
        let params = with(
            group_params(namespace, group),
            json!({"new-owner": new_owner}),
        );
        self.client.post(&self.path("change-owner"), params).await
    }

    /// Snapshots of a namespace, or of one group of it.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn snapshots(
        &self,
        namespace: &Namespace,
        group: Option<&BackupGroup>,
    ) -> Result<Value> {
        let params = match group {
            Some(group) => group_params(namespace, group),
            None => namespace_params(namespace),
        };
        self.client
            .get(&self.path("snapshots"), Value::Object(params))
            .await
    }

    /// The same, read as a list of `T`, which holds what is needed of each.
    ///
    /// # Errors
    /// As [`HttpClient::get_as`].
    pub async fn snapshots_as<T: DeserializeOwned>(
        &self,
        namespace: &Namespace,
        group: Option<&BackupGroup>,
    ) -> Result<Vec<T>> {
        let params = match group {
            Some(group) => group_params(namespace, group),
            None => namespace_params(namespace),
        };
        self.client
            .get_as(&self.path("snapshots"), Value::Object(params))
            .await
    }

    /// Time of the newest snapshot of a group that has a manifest, if there is one.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn newest_snapshot(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<Option<i64>> {
        let list = self.snapshots(namespace, Some(group)).await?;
        let finished = |item: &&Value| item.get("size").is_some_and(|size| !size.is_null());
        Ok(list
            .as_array()
            .into_iter()
            .flatten()
            .filter(finished)
            .filter_map(|item| item.get("backup-time")?.as_i64())
            .max())
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn forget_snapshot(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<Value> {
        let params = Value::Object(snapshot_params(namespace, snapshot));
        self.client.delete(&self.path("snapshots"), params).await
    }

    /// Files of a snapshot.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn files(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<Value> {
        let params = Value::Object(snapshot_params(namespace, snapshot));
        self.client.get(&self.path("files"), params).await
    }

    /// Notes of a snapshot.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn notes(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<Value> {
        let params = Value::Object(snapshot_params(namespace, snapshot));
        self.client.get(&self.path("notes"), params).await
    }

    /// Replaces the notes of a snapshot.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn set_notes(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        notes: &str,
    ) -> Result<Value> {
        let params = with(
            snapshot_params(namespace, snapshot),
            json!({"notes": notes}),
        );
        self.client.put(&self.path("notes"), params).await
    }

    /// Whether a snapshot is protected from removal.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn protected(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<Value> {
        let params = Value::Object(snapshot_params(namespace, snapshot));
        self.client.get(&self.path("protected"), params).await
    }

    /// Protects a snapshot from removal, or no longer.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn set_protected(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        protected: bool,
    ) -> Result<Value> {
        let params = with(
            snapshot_params(namespace, snapshot),
            json!({"protected": protected}),
        );
        self.client.put(&self.path("protected"), params).await
    }

    /// Adds the client's log to a snapshot; `blob` is an encoded data blob. Returns the whole envelope.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn upload_log(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        blob: Bytes,
    ) -> Result<Value> {
        let params = Value::Object(snapshot_params(namespace, snapshot));
        self.client
            .upload(&self.path("upload-backup-log"), params, blob)
            .await
    }

    /// Prunes a group; `options` holds `keep-…`, `dry-run`, `max-depth`.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn prune(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        options: Value,
    ) -> Result<Value> {
        let params = with(group_params(namespace, group), options);
        self.client.post(&self.path("prune"), params).await
    }

    /// Starts garbage collection; returns the UPID.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn start_garbage_collection(&self) -> Result<Value> {
        self.client.post(&self.path("gc"), Value::Null).await
    }

    /// Total, used and available space.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn status(&self) -> Result<Value> {
        self.client.get(&self.path("status"), Value::Null).await
    }

    /// Namespaces below `parent`, as the whole envelope.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn namespaces(&self, parent: &Namespace, max_depth: Option<u64>) -> Result<Value> {
        let params = json!({
            "parent": (!parent.is_root()).then(|| parent.to_string()),
            "max-depth": max_depth,
        });
        let path = self.path("namespace");
        self.client.request(Method::GET, &path, params).await
    }

    /// Creates a namespace in an existing one.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn create_namespace(&self, parent: &Namespace, name: &str) -> Result<Value> {
        let mut params = json!({"name": name});
        if !parent.is_root() {
            params["parent"] = parent.to_string().into();
        }
        self.client.post(&self.path("namespace"), params).await
    }

    /// Removes a namespace.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn delete_namespace(
        &self,
        namespace: &Namespace,
        delete_groups: Option<bool>,
    ) -> Result<Value> {
        let params = json!({"ns": namespace.to_string(), "delete-groups": delete_groups});
        self.client.delete(&self.path("namespace"), params).await
    }

    /// Moves a namespace; `options` holds `max-depth`, `delete-source`, `merge-groups`. Returns the UPID.
    ///
    /// # Errors
    /// See [`Self::groups`].
    pub async fn move_namespace(
        &self,
        namespace: &Namespace,
        target: &Namespace,
        options: Value,
    ) -> Result<Value> {
        let mut params = Map::new();
        params.insert("ns".to_owned(), namespace.to_string().into());
        params.insert("target-ns".to_owned(), target.to_string().into());
        self.client
            .post(&self.path("move-namespace"), with(params, options))
            .await
    }
}

/// Calls on the tasks of a server.
#[derive(Clone)]
pub struct TaskApi {
    client: HttpClient,
}

impl TaskApi {
    /// Calls on the server's tasks.
    pub fn new(client: HttpClient) -> Self {
        Self { client }
    }

    fn path(upid: &str, call: &str) -> String {
        format!(
            "nodes/localhost/tasks/{}{call}",
            encode_path_component(upid)
        )
    }

    /// Tasks; `filter` holds `limit`, `store`, `userfilter`, `running` and others.
    ///
    /// # Errors
    /// As [`HttpClient::get`]; so for all calls here.
    pub async fn list(&self, filter: Value) -> Result<Value> {
        self.client.get("nodes/localhost/tasks", filter).await
    }

    /// State of a task.
    ///
    /// # Errors
    /// See [`Self::list`].
    pub async fn status(&self, upid: &str) -> Result<Value> {
        self.client
            .get(&Self::path(upid, "/status"), Value::Null)
            .await
    }

    /// Lines of a task's log from line `start` (first is 0) as the whole envelope, with `active` telling whether
    /// the task still runs.
    ///
    /// # Errors
    /// See [`Self::list`].
    pub async fn log(&self, upid: &str, start: u64, limit: u64) -> Result<Value> {
        let params = json!({"start": start, "limit": limit, "test-status": true});
        self.client
            .request(Method::GET, &Self::path(upid, "/log"), params)
            .await
    }

    /// Asks a task to stop.
    ///
    /// # Errors
    /// See [`Self::list`].
    pub async fn stop(&self, upid: &str) -> Result<Value> {
        self.client.delete(&Self::path(upid, ""), Value::Null).await
    }
}

impl HttpClient {
    /// Version of the server.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn version(&self) -> Result<Value> {
        self.get("version", Value::Null).await
    }

    /// Identity of the server's installation.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn identity(&self) -> Result<Value> {
        self.get("nodes/localhost/identity", Value::Null).await
    }
}

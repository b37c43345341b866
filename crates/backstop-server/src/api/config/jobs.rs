//! `/config/prune` and `/config/verify`: jobs in the configuration.
//!
//! What a job may do depends on where it works, so that each call looks at the job before it asks for privileges, and at
//! its new place after a change, too.

use std::sync::LazyLock;

use backstop_types::Privileges;
use backstop_types::config_schema::job::{PRUNE_DELETABLE, VERIFICATION_DELETABLE};
use backstop_types::config_schema::value;
use backstop_types::schema::{Property, Schema};
use serde_json::{Map, Value};

use crate::api::edit_error;
use crate::config::EditError;
use crate::config::jobs::{JobFile, PRUNE_JOBS, VERIFY_JOBS, acl_path};
use crate::http::{ApiError, Reply};
use crate::router::schema::DIGEST;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// The jobs of one kind as the API shows them.
#[derive(Debug)]
pub struct JobCalls {
    /// Their file.
    pub file: &'static JobFile,
    /// Who sees a job in lists: one of these is enough.
    pub list: Privileges,
    /// Who may read a job: one of these is enough.
    pub read: Privileges,
    /// Who may change or run a job.
    pub write: Privileges,
}

/// Prune jobs.
pub static PRUNE: JobCalls = JobCalls {
    file: &PRUNE_JOBS,
    list: Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_MODIFY),
    read: Privileges::DATASTORE_AUDIT,
    write: Privileges::DATASTORE_MODIFY,
};

/// Verify jobs.
pub static VERIFY: JobCalls = JobCalls {
    file: &VERIFY_JOBS,
    list: Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_VERIFY),
    read: Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_VERIFY),
    write: Privileges::DATASTORE_VERIFY,
};

/// The id of a job in a path.
pub const ID: Property = Property::required("id", &value::CONFIG_ID);
const ITEM: &[Property] = &[ID];
const REMOVE: &[Property] = &[ID, DIGEST];

static PRUNE_DELETE: Schema = Schema::array(&PRUNE_DELETE_WORD);
static PRUNE_DELETE_WORD: Schema = Schema::words(PRUNE_DELETABLE);
static VERIFY_DELETE: Schema = Schema::array(&VERIFY_DELETE_WORD);
static VERIFY_DELETE_WORD: Schema = Schema::words(VERIFICATION_DELETABLE);

static PRUNE_CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| create_params(&PRUNE_JOBS));
static PRUNE_UPDATE: LazyLock<Vec<Property>> =
    LazyLock::new(|| update_params(&PRUNE_JOBS, &PRUNE_DELETE));
static VERIFY_CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| create_params(&VERIFY_JOBS));
static VERIFY_UPDATE: LazyLock<Vec<Property>> =
    LazyLock::new(|| update_params(&VERIFY_JOBS, &VERIFY_DELETE));

pub(super) fn create_params(file: &JobFile) -> Vec<Property> {
    let properties = file.properties.list.iter().copied();
    [ID].into_iter().chain(properties).collect()
}

pub(super) fn update_params(file: &JobFile, delete: &'static Schema) -> Vec<Property> {
    let properties = file.properties.list.iter();
    let properties = properties.map(|property| Property::optional(property.name, property.schema));
    [ID, Property::optional("delete", delete), DIGEST]
        .into_iter()
        .chain(properties)
        .collect()
}

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let prune = calls(
        &PRUNE,
        "/config/prune",
        "/config/prune/{id}",
        &PRUNE_CREATE,
        &PRUNE_UPDATE,
    );
    let verify = calls(
        &VERIFY,
        "/config/verify",
        "/config/verify/{id}",
        &VERIFY_CREATE,
        &VERIFY_UPDATE,
    );
    prune.into_iter().chain(verify).collect()
}

fn calls(
    jobs: &'static JobCalls,
    all: &'static str,
    one: &'static str,
    create_params: &'static [Property],
    update_params: &'static [Property],
) -> Vec<Endpoint> {
    let endpoint = |method, path, about, params, handler| Endpoint {
        method,
        path,
        about,
        params,
        // Depends on the job: the handlers check.
        permission: Permission::Anybody,
        handler,
    };
    vec![
        endpoint(
            Method::Get,
            all,
            "Lists the jobs.",
            &[],
            Handler::blocking(move |context, _| list(jobs, context)),
        ),
        endpoint(
            Method::Post,
            all,
            "Adds a job.",
            create_params,
            Handler::blocking(move |context, params| create(jobs, context, params)),
        ),
        endpoint(
            Method::Get,
            one,
            "Tells the settings of a job.",
            ITEM,
            Handler::blocking(move |context, params| read(jobs, context, params)),
        ),
        endpoint(
            Method::Put,
            one,
            "Changes the settings of a job.",
            update_params,
            Handler::blocking(move |context, params| update(jobs, context, params)),
        ),
        endpoint(
            Method::Delete,
            one,
            "Removes a job.",
            REMOVE,
            Handler::blocking(move |context, params| remove(jobs, context, params)),
        ),
    ]
}

impl JobCalls {
    /// Whether the caller has one of `privileges` where a job with these properties works.
    ///
    /// # Errors
    /// When nobody logged in, or the properties make no sense.
    pub fn allows(
        &self,
        context: &RequestContext,
        properties: &Map<String, Value>,
        privileges: Privileges,
    ) -> Result<bool, ApiError> {
        let path = acl_path(properties).map_err(edit_error)?;
        let granted = context.server().privileges(context.auth_id()?, &path);
        Ok(granted.intersects(privileges))
    }

    /// Refuses callers that have none of `privileges` where a job with these properties works.
    ///
    /// # Errors
    /// 403 for them.
    pub fn check(
        &self,
        context: &RequestContext,
        properties: &Map<String, Value>,
        privileges: Privileges,
    ) -> Result<(), ApiError> {
        if self.allows(context, properties, privileges)? {
            return Ok(());
        }
        let path = acl_path(properties).map_err(edit_error)?;
        Err(ApiError::missing_privilege(
            &privileges.names().join("|"),
            &path,
        ))
    }

    /// The properties of a job.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn properties(
        &self,
        context: &RequestContext,
        id: &str,
    ) -> Result<Map<String, Value>, ApiError> {
        let config = context.server().config();
        self.file.get(config, id).map_err(edit_error)
    }
}

fn list(jobs: &JobCalls, context: &RequestContext) -> Result<Reply, ApiError> {
    let loaded = context.server().config().sections(jobs.file.file)?;
    let mut list = Vec::new();
    for (id, section) in loaded.data.iter() {
        if jobs.allows(context, &section.properties, jobs.list)? {
            list.extend(loaded.data.to_api(id));
        }
    }
    Ok(Reply::data(&list)?.with_digest(loaded.digest))
}

fn read(jobs: &JobCalls, context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    jobs.check(context, &jobs.properties(context, id)?, jobs.read)?;
    let loaded = context.server().config().sections(jobs.file.file)?;
    Ok(Reply::data(&loaded.data.to_api(id))?.with_digest(loaded.digest))
}

fn create(jobs: &JobCalls, context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let properties = params.without(&["id"]);
    jobs.check(context, &properties, jobs.write)?;
    let server = context.server();
    jobs.file
        .create(
            server.config(),
            server.job_states(),
            params.required_text("id")?,
            properties,
        )
        .map_err(edit_error)?;
    Ok(Reply::null())
}

fn update(jobs: &JobCalls, context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    jobs.check(context, &jobs.properties(context, id)?, jobs.write)?;
    let change = (
        params.without(&["id", "delete", "digest"]),
        &*params.owned_texts("delete"),
    );
    let check = |after: &Map<String, Value>| {
        jobs.check(context, after, jobs.write)
            .map_err(|err| EditError::Forbidden(err.to_string()))
    };
    let server = context.server();
    jobs.file
        .update(
            server.config(),
            server.job_states(),
            id,
            change,
            params.text("digest"),
            check,
        )
        .map_err(edit_error)?;
    Ok(Reply::null())
}

fn remove(jobs: &JobCalls, context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    let server = context.server();
    // What is not there is said by the removal, in its own words.
    if server
        .config()
        .sections(jobs.file.file)?
        .data
        .get(id)
        .is_some()
    {
        jobs.check(context, &jobs.properties(context, id)?, jobs.write)?;
    }
    jobs.file
        .remove(
            server.config(),
            server.job_states(),
            id,
            params.text("digest"),
        )
        .map_err(edit_error)?;
    Ok(Reply::null())
}

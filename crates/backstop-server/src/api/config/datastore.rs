//! `/config/datastore`: datastores in the configuration; creating and deleting them.

use std::sync::{Arc, LazyLock};

use backstop_types::config_schema::{datastore as schema, value};
use backstop_types::schema::{Property, Schema};
use backstop_types::{DatastoreName, Privileges};
use serde_json::{Map, Value};

use super::datastore_tasks::{create_datastore, delete_datastore};
use crate::api::edit_error;
use crate::config::SectionFile;
use crate::config::datastore as store_config;
use crate::http::{ApiError, Reply};
use crate::router::schema::{BOOLEAN, DIGEST};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::task::TaskSpec;

static DELETABLE: Schema = Schema::words(schema::DELETABLE);
static DELETE: Schema = Schema::array(&DELETABLE);

const NAME: Property = Property::required("name", &value::CONFIG_ID);
const ITEM: &[Property] = &[NAME];
const REMOVE: &[Property] = &[
    NAME,
    DIGEST,
    Property::optional("keep-job-configs", &BOOLEAN),
    Property::optional("destroy-data", &BOOLEAN),
];
static CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let own = [
        NAME,
        Property::optional("reuse-datastore", &BOOLEAN),
        Property::optional("overwrite-in-use", &BOOLEAN),
    ];
    own.iter().chain(schema::DATASTORE.list).copied().collect()
});
/// What is fixed when a datastore is created.
const FIXED: [&str; 3] = ["path", "backing-device", "backend"];
static UPDATE: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let changeable = schema::DATASTORE
        .list
        .iter()
        .filter(|property| !FIXED.contains(&property.name));
    [NAME, Property::optional("delete", &DELETE), DIGEST]
        .iter()
        .chain(changeable)
        .copied()
        .collect()
});

const AUDIT: Permission = Permission::all("/datastore/{name}", Privileges::DATASTORE_AUDIT);
const MODIFY: Permission = Permission::all("/datastore/{name}", Privileges::DATASTORE_MODIFY);
const ALLOCATE: Permission = Permission::all("/datastore/{name}", Privileges::DATASTORE_ALLOCATE);

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler,
    };
    let all = "/config/datastore";
    let one = "/config/datastore/{name}";
    vec![
        endpoint(
            Method::Get,
            all,
            "Lists the configured datastores.",
            &[],
            Permission::Anybody,
            Handler::blocking(list),
        ),
        endpoint(
            Method::Post,
            all,
            "Creates a datastore.",
            CREATE.as_slice(),
            Permission::all("/datastore", Privileges::DATASTORE_ALLOCATE),
            Handler::blocking(create),
        ),
        endpoint(
            Method::Get,
            one,
            "Tells the settings of a datastore.",
            ITEM,
            AUDIT,
            Handler::blocking(read),
        ),
        endpoint(
            Method::Put,
            one,
            "Changes the settings of a datastore.",
            UPDATE.as_slice(),
            MODIFY,
            Handler::blocking(update),
        ),
        endpoint(
            Method::Delete,
            one,
            "Removes a datastore from the configuration, and its data if that is wanted.",
            REMOVE,
            ALLOCATE,
            Handler::blocking(remove),
        ),
    ]
}

fn list(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let caller = context.auth_id()?;
    let loaded = server.config().sections(SectionFile::Datastore)?;
    let sections: Vec<Map<String, Value>> = loaded
        .data
        .iter()
        .filter(|(name, _)| {
            let granted = server.privileges(caller, &format!("/datastore/{name}"));
            granted.contains(Privileges::DATASTORE_AUDIT)
        })
        .filter_map(|(name, _)| loaded.data.to_api(name))
        .collect();
    Ok(Reply::data(&sections)?.with_digest(loaded.digest))
}

fn read(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let loaded = context.server().config().sections(SectionFile::Datastore)?;
    let section = loaded
        .data
        .to_api(name)
        .ok_or_else(|| ApiError::bad_request(format!("no such datastore '{name}'")))?;
    Ok(Reply::data(&section)?.with_digest(loaded.digest))
}

fn create(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = Arc::clone(context.server());
    let caller = context.auth_id()?;
    let needed = Privileges::SYS_MODIFY;
    if params.has("backing-device") && !server.privileges(caller, "/system/disks").contains(needed)
    {
        return Err(ApiError::missing_privilege("Sys.Modify", "/system/disks"));
    }
    let section = params.without(&["reuse-datastore", "overwrite-in-use"]);
    let new = store_config::prepare(server.config(), section).map_err(edit_error)?;
    refuse_unsupported(&new.section)?;
    let reuse = params.bool("reuse-datastore", false);
    let spec = TaskSpec::new("create-datastore", new.name.to_string(), caller);
    let work = move |task: &_| create_datastore(&server, &new, reuse, task);
    Reply::data(&context.server().tasks().spawn_thread(spec, work)?)
}

/// Says at once what the task would find out later.
fn refuse_unsupported(section: &Map<String, Value>) -> Result<(), ApiError> {
    if section.contains_key("backing-device") {
        return Err(ApiError::bad_request(
            "removable datastores are not supported by this server",
        ));
    }
    let backend = section
        .get("backend")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if backend.contains("s3") {
        return Err(ApiError::bad_request(
            "datastores on object storage are not supported by this server",
        ));
    }
    Ok(())
}

fn update(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let name: DatastoreName = params.required("name")?;
    let section = params.without(&["name", "delete", "digest"]);
    let delete = params.owned_texts("delete");
    let config = context.server().config();
    let states = context.server().job_states();
    let change = (section, &*delete);
    store_config::update(config, states, &name, change, params.text("digest"))
        .map_err(edit_error)?;
    Ok(Reply::null())
}

fn remove(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let name: DatastoreName = params.required("name")?;
    let server = Arc::clone(context.server());
    let config = server.config();
    store_config::check_exists(config, &name).map_err(edit_error)?;
    config
        .sections(SectionFile::Datastore)?
        .check_digest(params.text("digest"))?;
    let keep_jobs = params.bool("keep-job-configs", false);
    let destroy = params.bool("destroy-data", false);
    let spec = TaskSpec::new("delete-datastore", name.to_string(), context.auth_id()?);
    let work = move |task: &_| delete_datastore(&server, &name, keep_jobs, destroy, task);
    Reply::data(&context.server().tasks().spawn_thread(spec, work)?)
}

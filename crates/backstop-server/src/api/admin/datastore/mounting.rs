//! Mounting and unmounting removable datastores: which this server does not do, and says so.

use backstop_types::schema::Property;
use backstop_types::{Namespace, Privileges};

use super::parameters::{STORE, store};
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const ALONE: &[Property] = &[STORE];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    let endpoint = |path, about| Endpoint {
        method: Method::Post,
        path,
        about,
        params: ALONE,
        // the handler also checks Datastore.Modify on the datastore
        permission: Permission::all("/system/disks", Privileges::SYS_MODIFY),
        handler: Handler::blocking(refuse),
    };
    vec![
        endpoint(
            "/admin/datastore/{store}/mount",
            "Mounts a removable datastore.",
        ),
        endpoint(
            "/admin/datastore/{store}/unmount",
            "Unmounts a removable datastore.",
        ),
    ]
}

fn refuse(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let store = store(params)?;
    let path = Namespace::root().acl_path(&store);
    let granted = context.server().privileges(context.auth_id()?, &path);
    if !granted.contains(Privileges::DATASTORE_MODIFY) {
        return Err(ApiError::missing_privilege("Datastore.Modify", &path));
    }
    let config = context.server().datastores().config(&store)?;
    Err(ApiError::bad_request(match config.backing_device {
        None => format!("datastore '{store}' is not removable"),
        Some(_) => "removable datastores are not supported by this server".to_owned(),
    }))
}

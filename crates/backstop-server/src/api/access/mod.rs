//! `/access`: log-in, users, tokens, permissions.

mod acl;
mod confirmation;
mod domains;
mod openid;
mod password;
mod permissions;
mod tfa;
mod ticket;
mod tokens;
mod users;

use backstop_types::Privileges;
use backstop_types::config_schema::value;
use backstop_types::schema::Property;

use crate::router::{Endpoint, Permission};

const USER_ID: Property = Property::required("userid", &value::USER_ID);

const OWN_OR_AUDIT: Permission = Permission::Or(&[
    Permission::all("/access/users", Privileges::SYS_AUDIT),
    Permission::UserParam("userid"),
]);
const OWN_OR_MODIFY: Permission = Permission::Or(&[
    Permission::all("/access/users", Privileges::PERMISSIONS_MODIFY),
    Permission::UserParam("userid"),
]);
const MODIFY: Permission = Permission::all("/access/users", Privileges::PERMISSIONS_MODIFY);

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    [
        acl::endpoints(),
        domains::endpoints(),
        openid::endpoints(),
        password::endpoints(),
        permissions::endpoints(),
        tfa::endpoints(),
        ticket::endpoints(),
        tokens::endpoints(),
        users::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

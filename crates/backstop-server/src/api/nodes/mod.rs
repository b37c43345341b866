//! `/nodes`: the host that the server runs on. There is one; whatever name stands in the path means it.

pub(crate) mod certificates;
mod config;
mod identity;
pub mod rrd;
mod state;
mod subscription;
mod task_access;
mod tasks;
mod time;

use serde_json::json;

use crate::http::Reply;
use crate::router::{Endpoint, Handler, Method, Permission};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let own = vec![Endpoint {
        method: Method::Get,
        path: "/nodes",
        about: "Lists the hosts: this one.",
        params: &[],
        permission: Permission::Superuser,
        handler: Handler::blocking(|context, _| {
            Reply::data(&[json!({ "node": context.server().node() })])
        }),
    }];
    [
        own,
        certificates::endpoints(),
        config::endpoints(),
        identity::endpoints(),
        rrd::endpoints(),
        state::endpoints(),
        subscription::endpoints(),
        tasks::endpoints(),
        time::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

//! Calls for which somebody who is logged in proves once more who it is. A password that is checked outside of this process, by a
//! directory or the system, is waited for like one of a login: in a queue that holds no thread, and not without end.

use std::sync::Arc;

use crate::http::{ApiError, Reply};
use crate::router::dispatch::on_thread;
use crate::router::{Handler, Params, RequestContext};

/// Who is asked for a password, as `name@realm`; `None` when nobody is.
type Asked = fn(&RequestContext, &Params) -> Option<String>;
type Work = fn(&RequestContext, &Params) -> Result<Reply, ApiError>;

/// A handler that blocks, once it is the turn of whoever is `asked`.
pub(super) fn confirmed(asked: Asked, work: Work) -> Handler {
    Handler::future(move |context, params| async move {
        let server = Arc::clone(context.server());
        let turn = match asked(&context, &params) {
            None => None,
            Some(user) => server.access().outside_turn(&user).await.map_err(|busy| {
                server
                    .auth_log()
                    .failure(context.peer(), &user, &busy.reason);
                ApiError::unauthorized(busy.reason)
            })?,
        };
        on_thread(&server, None, move || {
            let _turn = turn;
            work(&context, &params)
        })
        .await
    })
}

/// The caller, when it sends its password in this parameter and is not the superuser, who need not.
pub(super) fn caller(context: &RequestContext, params: &Params, password: &str) -> Option<String> {
    let user = context.caller()?.user();
    (params.has(password) && !user.is_root()).then(|| user.to_string())
}

//! Who owns a group.

use backstop_types::schema::Property;
use backstop_types::{AuthId, Operation, Privileges};

use super::content;
use super::parameters::{GROUP_ID, NEW_OWNER, NS, STORE, TYPE, group, namespace, new_owner, store};
use super::reach::Reach;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, RequestContext};

const PARAMS: &[Property] = &[STORE, NS, GROUP_ID, TYPE, NEW_OWNER];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![content(
        Method::Post,
        "/admin/datastore/{store}/change-owner",
        "Gives a group to somebody else.",
        PARAMS,
        change_owner,
    )]
}

fn change_owner(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns, group, new_owner) = (
        store(params)?,
        namespace(params)?,
        group(params)?,
        new_owner(params)?,
    );
    let (reach, datastore) = Reach::open(
        context,
        &store,
        &ns,
        Privileges::DATASTORE_MODIFY,
        Privileges::DATASTORE_BACKUP,
        Operation::Write,
    )?;
    let caller = context.auth_id()?;
    let owner = datastore.owner(&ns, &group).map_err(super::not_found)?;
    if !reach.is_full() && !may_hand_over(caller, &owner, &new_owner) {
        return Err(ApiError::unauthorized(format!(
            "{caller} does not have permission to change owner of backup group '{group}' to {new_owner}"
        )));
    }
    if !context.server().is_active(&new_owner)? {
        let what = if new_owner.is_token() {
            "API token"
        } else {
            "user"
        };
        return Err(ApiError::bad_request(format!(
            "{what} '{new_owner}' is inactive or non-existent"
        )));
    }
    datastore.set_owner(&ns, &group, &new_owner)?;
    Ok(Reply::null())
}

/// Without the right to change everything, a user may only pass groups between itself and its tokens, and between its
/// tokens.
fn may_hand_over(caller: &AuthId, owner: &AuthId, new_owner: &AuthId) -> bool {
    let user = |id: &AuthId| AuthId::from(id.user().clone());
    match (owner.is_token(), new_owner.is_token()) {
        (true, true) => owner.user() == new_owner.user() && user(owner) == *caller,
        (true, false) => user(owner) == *caller && new_owner == caller,
        (false, true) => owner == caller && user(new_owner) == *caller,
        (false, false) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn may(caller: &str, owner: &str, new_owner: &str) -> bool {
        may_hand_over(
            &caller.parse().unwrap(),
            &owner.parse().unwrap(),
            &new_owner.parse().unwrap(),
        )
    }

    #[test]
    fn a_user_passes_groups_between_itself_and_its_tokens_only() {
        assert!(may("a@pbs", "a@pbs!x", "a@pbs!y"));
        assert!(may("a@pbs", "a@pbs!x", "a@pbs"));
        assert!(may("a@pbs", "a@pbs", "a@pbs!x"));
        assert!(!may("a@pbs", "a@pbs", "b@pbs"));
        assert!(!may("a@pbs", "a@pbs", "a@pbs"));
        assert!(!may("a@pbs", "b@pbs!x", "a@pbs"));
        assert!(!may("a@pbs", "a@pbs!x", "b@pbs!x"));
        assert!(!may("a@pbs!x", "a@pbs!x", "a@pbs"));
    }
}

//! How far a caller's privileges reach in a namespace: to everything, or to the groups that it owns.
//!
//! Privileges are checked before the datastore is looked up, so that nobody can find out what exists.

use backstop_types::{AuthId, BackupGroup, DatastoreName, Namespace, Operation, Privileges};

use crate::datastores::DatastoreHandle;
use crate::http::ApiError;
use crate::router::RequestContext;

/// What a caller may work on.
#[derive(Clone, Debug)]
pub struct Reach {
    caller: AuthId,
    all: bool,
}

impl Reach {
    /// One of `full` reaches everything in the namespace, one of `owned` the caller's own groups.
    ///
    /// # Errors
    /// 403 when the caller has none of them.
    pub fn of(
        context: &RequestContext,
        store: &DatastoreName,
        ns: &Namespace,
        full: Privileges,
        owned: Privileges,
    ) -> Result<Self, ApiError> {
        let caller = context.auth_id()?.clone();
        let path = ns.acl_path(store);
        let granted = context.server().privileges(&caller, &path);
        let all = granted.intersects(full);
        if all || granted.intersects(owned) {
            return Ok(Self { caller, all });
        }
        Err(ApiError::missing_privilege(
            &full.union(owned).names().join("|"),
            &path,
        ))
    }

    /// As [`Reach::of`], and only then opens the datastore, so that nothing is told to those who may not ask.
    ///
    /// # Errors
    /// As [`Reach::of`]; the datastore does not exist or its maintenance mode forbids the operation.
    pub fn open(
        context: &RequestContext,
        store: &DatastoreName,
        ns: &Namespace,
        full: Privileges,
        owned: Privileges,
        operation: Operation,
    ) -> Result<(Self, DatastoreHandle), ApiError> {
        let reach = Self::of(context, store, ns, full, owned)?;
        let datastore = context.server().datastores().lookup(store, operation)?;
        Ok((reach, datastore))
    }

    /// Whether all groups are reached.
    pub fn is_full(&self) -> bool {
        self.all
    }

    /// Whether a group of this owner is reached.
    pub fn admits(&self, owner: &AuthId) -> bool {
        self.all || self.caller.owns(owner)
    }

    /// Fails unless the group is reached. Reads the owner only if that matters.
    pub fn check_group(
        &self,
        datastore: &DatastoreHandle,
        ns: &Namespace,
        group: &BackupGroup,
    ) -> Result<(), ApiError> {
        if self.all {
            return Ok(());
        }
        let owner = datastore.owner(ns, group)?;
        if self.caller.owns(&owner) {
            return Ok(());
        }
        Err(ApiError::bad_request(format!(
            "backup owner check failed ({} != {owner})",
            self.caller
        )))
    }
}

/// The privileges that make a datastore visible in lists.
pub const VISIBLE: Privileges = Privileges::DATASTORE_MODIFY
    .union(Privileges::DATASTORE_READ)
    .union(Privileges::DATASTORE_BACKUP)
    .union(Privileges::DATASTORE_AUDIT);

/// Whether the caller holds one of [`VISIBLE`] on the datastore or on something below it.
pub fn sees(context: &RequestContext, store: &DatastoreName) -> Result<bool, ApiError> {
    let caller = context.auth_id()?;
    let path = Namespace::root().acl_path(store);
    Ok(context.server().privileges_below(caller, &path, VISIBLE))
}

//! Who may see which checks: what somebody may audit, and their own groups.

use std::cell::RefCell;
use std::collections::HashMap;

use backstop_health::{Finding, Scope};
use backstop_types::{AuthId, DatastoreName, Namespace, Privileges};

use crate::api::config::sync::may_see;
use crate::config::jobs::SYNC_JOBS;
use crate::server::Server;

/// The path on which `Sys.Audit` shows what concerns the whole server.
const SYSTEM: &str = "/system/status";

/// The eyes of somebody, who looks at many checks.
pub(crate) struct Eyes<'a> {
    server: &'a Server,
    auth_id: &'a AuthId,
    /// Privileges by path.
    known: RefCell<HashMap<String, Privileges>>,
    /// Whether sync jobs may be seen, by id.
    jobs: RefCell<HashMap<String, bool>>,
}

impl<'a> Eyes<'a> {
    /// Those of `auth_id`.
    pub fn new(server: &'a Server, auth_id: &'a AuthId) -> Self {
        Self {
            server,
            auth_id,
            known: RefCell::default(),
            jobs: RefCell::default(),
        }
    }

    fn privileges(&self, path: &str) -> Privileges {
        if let Some(known) = self.known.borrow().get(path) {
            return *known;
        }
        let found = self.server.privileges(self.auth_id, path);
        self.known.borrow_mut().insert(path.to_owned(), found);
        found
    }

    /// Whether they may see a check.
    pub fn see(&self, finding: &Finding) -> bool {
        match finding.object.strip_prefix("job/sync/") {
            Some(id) => self.see_sync_job(id, &finding.scope),
            None => self.see_scope(&finding.scope),
        }
    }

    /// A sync job shows what it does elsewhere, too.
    fn see_sync_job(&self, id: &str, scope: &Scope) -> bool {
        if let Some(known) = self.jobs.borrow().get(id) {
            return *known;
        }
        let sees = match SYNC_JOBS.get(self.server.config(), id) {
            Ok(job) => may_see(self.server, self.auth_id, &job).unwrap_or(false),
            // It was removed; what is left of it is for those who may see all that it was about.
            Err(_) => self.see_scope(scope) && self.see_remote(scope),
        };
        self.jobs.borrow_mut().insert(id.to_owned(), sees);
        sees
    }

    fn see_remote(&self, scope: &Scope) -> bool {
        scope.remote.as_ref().is_none_or(|remote| {
            let path = format!("/remote/{remote}");
            self.privileges(&path).contains(Privileges::REMOTE_AUDIT)
        })
    }

    /// Whether they may see what is about this.
    pub fn see_scope(&self, scope: &Scope) -> bool {
        let Some(store) = &scope.datastore else {
            return match scope.remote {
                Some(_) => self.see_remote(scope),
                None => self.privileges(SYSTEM).contains(Privileges::SYS_AUDIT),
            };
        };
        let Ok(store) = store.parse::<DatastoreName>() else {
            return false;
        };
        let namespace = scope.namespace.clone().unwrap_or_else(Namespace::root);
        let granted = self.privileges(&namespace.acl_path(&store));
        let owner = scope.owner.as_ref().and_then(|owner| owner.parse().ok());
        let owns = || owner.is_some_and(|owner: AuthId| self.auth_id.owns(&owner));
        granted.contains(Privileges::DATASTORE_AUDIT)
            || (granted.contains(Privileges::DATASTORE_BACKUP) && owns())
    }
}

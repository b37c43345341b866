//! Groups and datastores that are not there any more though nobody has removed them through this server.

use crate::facts::GoneFacts;
use crate::{Code, Finding, Moment, Scope, State};

pub fn judge(gone: &[GoneFacts], moment: &Moment, findings: &mut Vec<Finding>) {
    let code = Code::BackupGone;
    for lost in gone {
        let scope = Scope::of_object(&lost.object);
        if lost.is_back {
            let text = "it is there again";
            findings.push(Finding::ok(code, &lost.object, &scope, text));
            continue;
        }
        let newest = match lost.newest {
            Some(newest) => format!("; its newest known backup was of {}", moment.ago(newest)),
            None => String::new(),
        };
        let name = scope.datastore.clone().unwrap_or_default();
        let (text, remedy) = match (lost.object.strip_prefix("group/"), lost.more) {
            (Some(_), _) => (
                format!(
                    "its backups are gone, and nobody has removed them through this server{newest}"
                ),
                format!(
                    "see who or what has removed them from the file system of datastore '{name}', and sync or back it up anew; if that \
                     was on purpose, acknowledge it"
                ),
            ),
            (None, 0) => (
                format!("it is not in datastore.cfg any more, and nobody has removed it through this server{newest}"),
                format!(
                    "put it back into datastore.cfg (proxmox-backup-manager datastore create {name} PATH --reuse-datastore true); if that was \
                     on purpose, acknowledge it"
                ),
            ),
            (None, more) => (
                format!("{more} further groups are gone, and nobody has removed them through this server"),
                "see who or what has removed them from its file system; if that was on purpose, acknowledge it".to_owned(),
            ),
        };
        findings.push(Finding::ok(code, &lost.object, &scope, text).bad(
            State::Critical,
            Some(lost.since),
            remedy,
        ));
    }
}

//! Remotes that do not answer.

use crate::facts::RemoteFacts;
use crate::{Code, Finding, Moment, Scope, State};

/// A remote that has answered before may miss one question.
const ENOUGH: u32 = 2;

pub fn judge(remote: &RemoteFacts, moment: &Moment, findings: &mut Vec<Finding>) {
    let object = format!("remote/{}", remote.name);
    let ok = |text: String| {
        Finding::ok(
            Code::RemoteUnreachable,
            &object,
            &Scope::remote(&remote.name),
            text,
        )
    };
    let Some(error) = &remote.error else {
        findings.push(ok("it answers".to_owned()));
        return;
    };
    if remote.has_answered && remote.failures < ENOUGH {
        findings.push(ok(format!(
            "it did not answer when it was asked last, and is asked again soon: {error}"
        )));
        return;
    }
    let since = remote.since.map_or(String::new(), |since| {
        format!(" since {}", moment.ago(since))
    });
    findings.push(ok(format!("it does not answer{since}: {error}")).bad(
        State::Unknown,
        remote.since,
        format!(
            "see whether it runs and can be reached, and whether its host, port and login are right: proxmox-backup-manager remote check {}",
            remote.name
        ),
    ));
}

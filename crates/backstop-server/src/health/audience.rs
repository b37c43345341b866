//! Facts of who can be told: whether a matcher leads errors to a target that can be reached, and what reached nobody.

use std::collections::BTreeSet;

use backstop_health::facts::{AudienceFacts, UnheardFacts};
use backstop_notify::Severity;
use serde_json::Value;

use crate::config::notifications::settings;
use crate::config::{ConfigError, SectionFile};
use crate::notifications::USER_LANE;
use crate::server::Server;

/// For how long what reached nobody is told, in seconds.
const TOLD: i64 = 86_400;

/// Who can be told. `None`: a file cannot be read, which is a finding of its own. Blocks for small files.
pub(super) fn gather(server: &Server, now: i64) -> Option<AudienceFacts> {
    look(server, now).ok()
}

fn look(server: &Server, now: i64) -> Result<AudienceFacts, ConfigError> {
    let settings = settings(server.config())?.data;
    let users = server.config().sections(SectionFile::User)?;
    let has_mail = |user: &str| {
        let section = users.data.get_typed("user", user);
        let address = section.and_then(|user| user.properties.get("email").and_then(Value::as_str));
        address.is_some_and(|address| !address.is_empty())
    };
    let why_not = |name: &str| match settings.target(name) {
        Ok(target) => target.unreachable(has_mail),
        Err(err) => Some(err.to_string()),
    };
    let (matchers, broken) = settings.matchers();
    let mut audience = AudienceFacts {
        reasons: broken,
        ..AudienceFacts::default()
    };
    let mut targets = BTreeSet::new();
    for matcher in &matchers {
        if matcher.disabled {
            audience
                .reasons
                .push(format!("matcher '{}' is disabled", matcher.name));
        } else if matcher.can_match(Severity::Error) {
            targets.extend(matcher.targets.iter().map(String::as_str));
        }
    }
    for name in targets {
        match why_not(name) {
            None => audience.reached.push(name.to_owned()),
            Some(reason) => audience.reasons.push(reason),
        }
    }
    for (target, lost) in server.notifier().unheard(now.saturating_sub(TOLD)) {
        // Who has an address by now is told of what comes.
        let is_mended = match target.strip_prefix(USER_LANE) {
            Some(user) => has_mail(user),
            None => why_not(&target).is_none(),
        };
        if !is_mended {
            audience.unheard.push(UnheardFacts {
                target,
                count: lost.count,
                last: lost.last,
                reason: lost.reason,
            });
        }
    }
    Ok(audience)
}

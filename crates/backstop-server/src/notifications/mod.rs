//! Telling people what happened: accepts events, decides by the configuration who is told, and delivers to each target on a thread of
//! its own.
//!
//! The rules are those of `backstop_notify`; this knows where the configuration and the state are, and what the host is called. An event
//! never fails whoever reports it, and never waits for a target.

mod certificate;
pub(crate) mod cut_off;
pub mod events;
mod job_runs;
mod unheard;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use backstop_notify::delivery::LIMIT;
use backstop_notify::target::{Mail, TargetKind};
use backstop_notify::{
    Dispatch, DispatchError, Notification, SendError, Settings, SettingsError, Surroundings,
    Target, Templates,
};
use backstop_outgoing::spool::{Look, Pass};
use backstop_outgoing::{Carrier, Delivery, Route, Spool, SpoolError, Undelivered};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use serde_json::Value;

use crate::config::notifications::{matchers, settings};
use crate::config::remote::node_proxy;
use crate::config::{ConfigStore, SectionFile};
use crate::http::error::chain;
use crate::roots::Roots;

use unheard::Unheard;

pub use events::Host;
pub use job_runs::JobRun;
pub(crate) use unheard::Lost;

/// What the lane of mail to a user begins with, which no target's name does.
pub(crate) const USER_LANE: &str = "user:";

/// Accepts notifications and delivers them.
#[derive(Debug)]
pub struct Notifier {
    dispatch: Dispatch,
    host: Host,
    config: Arc<ConfigStore>,
    roots: Roots,
    /// What was wrong last, by what it was about, so that it is said once.
    said: Mutex<BTreeMap<String, String>>,
    /// The targets that there were at the last look.
    targets: Mutex<Option<BTreeSet<String>>>,
    unheard: Mutex<Unheard>,
}

impl Notifier {
    /// Uses the directories of an installation on the host `node`.
    ///
    /// # Errors
    /// When directories cannot be made.
    pub fn open(
        roots: &Roots,
        node: &str,
        config: Arc<ConfigStore>,
    ) -> Result<Self, DispatchError> {
        Ok(Self {
            dispatch: Dispatch::open(&roots.var_lib())?,
            host: Host::of(node),
            config,
            roots: roots.clone(),
            said: Mutex::default(),
            targets: Mutex::default(),
            unheard: Mutex::new(Unheard::open(&roots.var_lib())),
        })
    }

    /// The host as notifications name it.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Tells of something. It is on the disk when this returns, and delivered later. Blocks for a small file.
    pub fn notify(&self, notification: &Notification) {
        let template = notification.template();
        match self.dispatch.accept(notification) {
            Ok(()) => {
                tracing::debug!(id = %notification.id, template, "accepted a notification");
            }
            Err(err) => {
                tracing::error!(%err, template, "a notification is kept in memory only");
            }
        }
        self.dispatch.spool().wake();
    }

    /// Sends a test notification to a target at once. Blocking.
    ///
    /// # Errors
    /// Why it did not arrive, without secrets.
    pub fn test(&self, target: &Target) -> Result<(), String> {
        test(target, &self.host, &self.config, &self.roots)
    }

    /// What has not arrived though it was tried or should have been, what waits behind it, and what is refused. Blocking.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn undelivered(&self) -> Result<Vec<Undelivered>, DispatchError> {
        self.dispatch.undelivered(Timestamp::now().as_second())
    }

    /// What reached nobody since a time, by target. Never blocks for long.
    pub(crate) fn unheard(&self, since: i64) -> Vec<(String, Lost)> {
        self.unheard.lock().since(since)
    }

    /// The spool and what leads to it.
    pub fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// Makes everything in the spool due at once. Blocking.
    ///
    /// # Errors
    /// When the spool cannot be written.
    pub fn retry(&self) -> Result<(), DispatchError> {
        self.dispatch.retry(Timestamp::now().as_second())
    }

    /// Says what is wrong with something once, as long as it does not change.
    fn say(&self, about: &str, problems: &[String]) {
        let text = problems.join("\n");
        let mut said = self.said.lock();
        if said.get(about).map_or("", String::as_str) == text {
            return;
        }
        for problem in problems {
            tracing::error!("{problem}");
        }
        match text.is_empty() {
            true => said.remove(about),
            false => said.insert(about.to_owned(), text),
        };
    }

    /// Forgets what waits for targets that were removed, and what they were told.
    fn forget_removed(&self, settings: &Settings) -> Result<(), DispatchError> {
        let targets = settings.targets();
        let names = targets
            .iter()
            .filter_map(|target| target.get("name")?.as_str());
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let mut known = self.targets.lock();
        if known.as_ref() == Some(&names) {
            return Ok(());
        }
        // One whose settings make no sense is there, too.
        let exists =
            |lane: &str| lane.starts_with(USER_LANE) || settings.target_type(lane).is_some();
        let problems = self.dispatch.retain_targets(exists)?;
        self.say("what was told", &problems);
        *known = Some(names);
        Ok(())
    }

    fn target(&self, lane: &str) -> Result<Target, SettingsError> {
        if let Some(user) = lane.strip_prefix(USER_LANE) {
            let mail = Mail {
                to_users: vec![user.to_owned()],
                ..Mail::default()
            };
            return Ok(Target {
                name: lane.to_owned(),
                disabled: false,
                kind: TargetKind::Sendmail(mail),
            });
        }
        let settings: Settings = settings(&self.config)
            .map_err(|err| SettingsError::Refused(chain(&err)))?
            .data;
        settings.target(lane)
    }
}

impl Carrier for Notifier {
    type Item = Notification;

    fn spool(&self) -> &Spool {
        self.dispatch.spool()
    }

    /// Sorts what was accepted.
    fn fill(&self, now: i64) -> Vec<(String, Notification)> {
        let mut problems = Vec::new();
        let mut unkept = Vec::new();
        match matchers(&self.config) {
            Ok(settings) => {
                let (matchers, broken) = settings.matchers();
                problems.extend(
                    broken
                        .into_iter()
                        .map(|reason| format!("not asked who is to be told: {reason}")),
                );
                if let Err(err) = self.forget_removed(&settings) {
                    problems.push(chain(&err));
                }
                match self.dispatch.sort(&matchers, &TimeZone::system(), now) {
                    Ok(sorted) => {
                        for problem in &sorted.problems {
                            tracing::error!("{problem}");
                        }
                        unkept = sorted.unkept;
                    }
                    Err(err) => problems.push(chain(&err)),
                }
            }
            // Whoever is to be told is not known: what was accepted waits until it is.
            Err(err) => {
                problems.push(format!("notifications wait: {}", chain(&err)));
            }
        }
        self.say("who is told", &problems);
        unkept
    }

    fn deliver(&self, lane: &str, notification: &Notification) -> Delivery {
        let target = match self.target(lane) {
            Ok(target) => target,
            // Whoever removed it wants nothing to go there.
            Err(SettingsError::NotFound(_)) => {
                tracing::warn!(way = lane, "not told: there is no such target");
                return Delivery::Withdrawn;
            }
            Err(SettingsError::Refused(reason)) => return Delivery::Failed(reason),
        };
        if target.disabled {
            tracing::info!(way = lane, "not told: the target is disabled");
            return Delivery::Withdrawn;
        }
        let surroundings = match surroundings(&self.host, &self.config, &self.roots) {
            Ok(surroundings) => surroundings,
            Err(reason) => return Delivery::Failed(reason),
        };
        match target.send(notification, &surroundings) {
            Ok(()) => {
                let id = notification.id;
                tracing::info!(%id, way = lane, template = notification.template(), "told");
                let problems = self.dispatch.arrived(lane, notification);
                self.say("what was told", &problems);
                Delivery::Delivered
            }
            Err(SendError::Nobody(reason)) => {
                tracing::warn!(
                    way = lane,
                    template = notification.template(),
                    "nobody is told: {reason}"
                );
                let now = Timestamp::now().as_second();
                self.unheard.lock().note(lane, &reason, now);
                Delivery::Withdrawn
            }
            Err(SendError::Failed(reason)) => Delivery::Failed(reason),
            Err(SendError::Busy { reason, wait }) => Delivery::Busy { reason, wait },
            Err(SendError::Refused(reason)) => Delivery::Refused(reason),
        }
    }

    /// What could not be kept is kept on until it has arrived, or nobody wants it.
    fn tried(&self, lane: &str, notification: &Notification, outcome: &Delivery) {
        if let Delivery::Withdrawn | Delivery::Hopeless(_) = outcome {
            let problems = self.dispatch.lost(lane, notification);
            self.say("what was told", &problems);
        }
    }

    fn lost(&self, lane: &str, notification: &Notification) {
        let problems = self.dispatch.lost(lane, notification);
        self.say("what was told", &problems);
    }

    fn looked(&self, found: &Result<Look, SpoolError>) {
        let problem = found.as_ref().err().map(|err| chain(err));
        self.say("the spool", problem.as_slice());
    }

    fn delivered(&self, lane: &str, outcome: &Result<Pass, SpoolError>) {
        let problems = match outcome {
            Ok(pass) => {
                let failed = pass.failed.iter().chain(&pass.refused);
                failed
                    .map(|reason| format!("a notification did not arrive at {reason}"))
                    .collect()
            }
            Err(err) => vec![chain(err)],
        };
        self.say(&format!("target {lane}"), &problems);
    }
}

/// Sends a test notification to a target at once. Blocking.
///
/// # Errors
/// Why it did not arrive, without secrets.
pub fn test(
    target: &Target,
    host: &Host,
    config: &ConfigStore,
    roots: &Roots,
) -> Result<(), String> {
    let surroundings = surroundings(host, config, roots)?;
    let now = Timestamp::now().as_second();
    let notification = events::test(host, now, &target.name);
    target
        .send(&notification, &surroundings)
        .map_err(|err| format!("could not notify via endpoint(s): {}: {err}", target.name))
}

fn surroundings(host: &Host, config: &ConfigStore, roots: &Roots) -> Result<Surroundings, String> {
    let proxy = node_proxy(config).map_err(|err| chain(&err))?;
    let route = Route::of_host(proxy).map_err(|err| chain(&err))?;
    let node = config.node().map_err(|err| chain(&err))?.data;
    let users = config
        .sections(SectionFile::User)
        .map_err(|err| chain(&err))?;
    let mail_of: BTreeMap<String, String> = users
        .data
        .of_type("user")
        .filter_map(|(id, user)| {
            let address = user.properties.get("email")?.as_str()?;
            Some((id.to_owned(), address.to_owned()))
        })
        .collect();
    let mail_from = node.values.get("email-from").and_then(Value::as_str);
    let templates = roots.etc().join("notification-templates/default");
    // An installation below a directory of its own can have a program of its own.
    let own = roots.prefix().join("usr/sbin/sendmail");
    let sendmail = match own.exists() {
        true => own,
        false => Path::new("/usr/sbin/sendmail").to_owned(),
    };
    Ok(Surroundings {
        node: host.name.clone(),
        fqdn: host.fqdn.clone(),
        mail_from: mail_from.map(str::to_owned),
        route,
        mail_of,
        sendmail,
        templates: Templates::with_overrides(templates),
        limit: LIMIT,
    })
}

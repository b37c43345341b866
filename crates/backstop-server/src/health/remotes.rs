//! Certificates of remotes: which ones they show, and until when they are valid.
//!
//! They are asked now and then, in the background: a remote that does not answer holds up nothing. First only for its certificate,
//! without sending any credential; only when that is not the pinned one, it is tried as a sync would do it, which may follow a proven
//! change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstop_client::connection::trust::CertificateSummary;
use backstop_client::{ClientError, HttpClient};
use backstop_format::Fingerprint;
use backstop_health::Held;
use backstop_health::facts::{CertificateFacts, Facts, RemoteFacts};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::config::SectionFile;
use crate::config::remote::RemoteAccount;
use crate::http::error::chain;
use crate::server::Server;

/// How often a remote is asked when all is well.
const OFTEN: Duration = Duration::from_secs(6 * 3600);
/// How soon after it has not answered for the first time: it may have been a hiccup.
const AGAIN: Duration = Duration::from_secs(120);
/// How often when it is not.
const MORE_OFTEN: Duration = Duration::from_secs(1800);
/// After this time it may be asked again for somebody who wants news.
const SOONEST: Duration = Duration::from_secs(30);
/// A remote is not asked before it was known for so long: whoever sets it up is at it still.
const NEW: Duration = Duration::from_secs(600);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known of remotes, by name.
pub(super) type Remotes = Mutex<HashMap<String, Known>>;

/// What a remote has shown.
#[derive(Debug, Clone)]
struct Seen {
    shown: CertificateSummary,
    untrusted: Option<String>,
}

/// Where a remote is and what it has to show; another one begins anew.
type Identity = (String, u16, Option<Fingerprint>, Option<String>);

/// What is known of a remote.
#[derive(Debug)]
pub(super) struct Known {
    identity: Identity,
    first: Instant,
    /// When it was asked last; an answer may be awaited.
    asked: Option<Instant>,
    is_asked: bool,
    /// What it has shown, or why it has not.
    answer: Option<Result<Seen, String>>,
    /// Whether it has answered since it is known.
    has_answered: bool,
    /// How many times in a row it has not answered, and since when that is so.
    failures: u32,
    failing: Option<i64>,
}

/// Adds the certificates of remotes as they were seen last, and asks for news in the background. Returns what is not known.
pub(super) fn gather(server: &Arc<Server>, is_asked: bool, facts: &mut Facts) -> Vec<Held> {
    let Ok(loaded) = server.config().sections(SectionFile::Remote) else {
        let (prefix, reason) = ("remote/".to_owned(), "remote.cfg cannot be read".to_owned());
        return vec![Held { prefix, reason }];
    };
    let names: Vec<&str> = loaded.data.iter().map(|(name, _)| name).collect();
    let mut held = Vec::new();
    let mut known = server.health().remotes.lock();
    known.retain(|name, _| names.contains(&name.as_str()));
    for name in names {
        // One that makes no sense fails with every sync, which says why.
        let Ok(account) = server.remote_account(name) else {
            continue;
        };
        let identity = identity(&account);
        let entry = known
            .entry(name.to_owned())
            .or_insert_with(|| Known::new(identity.clone()));
        if entry.identity != identity {
            *entry = Known::new(identity);
        }
        if entry.is_due(is_asked) {
            entry.asked = Some(Instant::now());
            entry.is_asked = true;
            ask(server, name.to_owned(), account);
        }
        if entry.answer.is_some() {
            facts.remotes.push(RemoteFacts {
                name: name.to_owned(),
                error: entry
                    .answer
                    .as_ref()
                    .and_then(|answer| answer.as_ref().err().cloned()),
                since: entry.failing,
                failures: entry.failures,
                has_answered: entry.has_answered,
            });
        }
        match &entry.answer {
            Some(Ok(seen)) => facts.certificates.push(CertificateFacts {
                remote: Some(name.to_owned()),
                validity: seen.shown.validity,
                fingerprint: Some(seen.shown.fingerprint.to_string()),
                untrusted: seen.untrusted.clone(),
                next: None,
            }),
            // That it does not answer is no matter of its certificate; what was known of that is known still.
            Some(Err(reason)) => held.push(of(name, reason.clone())),
            None => held.push(of(name, "it was not asked yet".to_owned())),
        }
    }
    held
}

fn of(name: &str, reason: String) -> Held {
    Held {
        prefix: format!("remote/{name}"),
        reason,
    }
}

fn identity(account: &RemoteAccount) -> Identity {
    (
        account.host.clone(),
        account.port,
        account.fingerprint,
        account.tls_server_name.clone(),
    )
}

impl Known {
    fn new(identity: Identity) -> Self {
        Self {
            identity,
            first: Instant::now(),
            asked: None,
            is_asked: false,
            answer: None,
            has_answered: false,
            failures: 0,
            failing: None,
        }
    }

    /// Takes in what came of asking it.
    fn take(&mut self, answer: Result<Seen, String>, now: i64) {
        self.is_asked = false;
        match &answer {
            Ok(_) => {
                self.has_answered = true;
                self.failures = 0;
                self.failing = None;
            }
            Err(_) => {
                self.failures = self.failures.saturating_add(1);
                self.failing = self.failing.or(Some(now));
            }
        }
        self.answer = Some(answer);
    }

    fn is_due(&self, somebody_waits: bool) -> bool {
        if self.is_asked {
            return false;
        }
        let is_well = matches!(&self.answer, Some(Ok(seen)) if seen.untrusted.is_none());
        let pause = match (somebody_waits, is_well) {
            (true, _) => SOONEST,
            (false, true) => OFTEN,
            (false, false) if self.failures == 1 => AGAIN,
            (false, false) => MORE_OFTEN,
        };
        match self.asked {
            Some(asked) => asked.elapsed() >= pause,
            None => somebody_waits || self.first.elapsed() >= NEW,
        }
    }
}

fn ask(server: &Arc<Server>, name: String, account: RemoteAccount) {
    let own = Arc::clone(server);
    let asked = identity(&account);
    server.runtimes().data.spawn(async move {
        let answer = match tokio::time::timeout(PATIENCE, look(&account)).await {
            Ok(answer) => answer,
            Err(_) => Err("it does not answer".to_owned()),
        };
        let health = own.health();
        // What another remote of this name has shown is nothing of this one.
        if let Some(known) = health.remotes.lock().get_mut(&name)
            && known.identity == asked
        {
            known.take(answer, Timestamp::now().as_second());
        }
        // What it has shown is on the list soon.
        health.want();
    });
}

/// Sees which certificate a remote shows, and whether that is trusted.
async fn look(account: &RemoteAccount) -> Result<Seen, String> {
    let mut options = account.client_options();
    // Only who trusts the certificate would be sent this, which is nobody.
    options.secret = Some("-".to_owned());
    options.pins = None;
    options.trust_system_authorities = false;
    // No certificate has this one, so that the connection ends with what was shown.
    options.fingerprint = Some(Fingerprint([0; 32]));
    let shown = match HttpClient::connect(options).await {
        Err(ClientError::Untrusted(untrusted)) => untrusted.presented,
        Err(err) => return Err(chain(&err)),
        Ok(_) => return Err("it shows no certificate".to_owned()),
    };
    if account.fingerprint == Some(shown.fingerprint) {
        return Ok(Seen {
            shown,
            untrusted: None,
        });
    }
    let untrusted = match HttpClient::connect(account.client_options()).await {
        Ok(_) => None,
        Err(ClientError::Untrusted(untrusted)) => Some(match untrusted.expected {
            Some(expected) => format!(
                "expected {expected}, shown {} (of {}, issued by {})",
                shown.fingerprint, shown.subject, shown.issuer
            ),
            None => format!(
                "no authority vouches for {} (of {}, issued by {}), and it is not pinned",
                shown.fingerprint, shown.subject, shown.issuer
            ),
        }),
        // Whoever has its answer to a request has trusted it before.
        Err(
            ClientError::Status { .. }
            | ClientError::SecondFactor { .. }
            | ClientError::Protocol { .. },
        ) => None,
        // Whether it is trusted is not known.
        Err(err) => return Err(chain(&err)),
    };
    Ok(Seen { shown, untrusted })
}

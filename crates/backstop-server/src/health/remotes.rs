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
use backstop_health::facts::{CertificateFacts, Facts};
use parking_lot::Mutex;

use crate::config::SectionFile;
use crate::config::remote::RemoteAccount;
use crate::http::error::chain;
use crate::server::Server;

/// How often a remote is asked when all is well.
const OFTEN: Duration = Duration::from_secs(6 * 3600);
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

/// What is known of a remote.
#[derive(Debug)]
pub(super) struct Known {
    /// Where it is and what it has to show; another remote begins anew.
    identity: (String, u16, Option<Fingerprint>, Option<String>),
    first: Instant,
    /// When it was asked last; an answer may be awaited.
    asked: Option<Instant>,
    is_asked: bool,
    /// What it has shown, or why it has not.
    answer: Option<Result<Seen, String>>,
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
        let identity = (
            account.host.clone(),
            account.port,
            account.fingerprint,
            account.tls_server_name.clone(),
        );
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

impl Known {
    fn new(identity: (String, u16, Option<Fingerprint>, Option<String>)) -> Self {
        Self {
            identity,
            first: Instant::now(),
            asked: None,
            is_asked: false,
            answer: None,
        }
    }

    fn is_due(&self, somebody_waits: bool) -> bool {
        if self.is_asked {
            return false;
        }
        let is_well = matches!(&self.answer, Some(Ok(seen)) if seen.untrusted.is_none());
        let pause = match (somebody_waits, is_well) {
            (true, _) => SOONEST,
            (false, true) => OFTEN,
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
    server.runtimes().data.spawn(async move {
        let answer = match tokio::time::timeout(PATIENCE, look(&account)).await {
            Ok(answer) => answer,
            Err(_) => Err("it does not answer".to_owned()),
        };
        let health = own.health();
        if let Some(known) = health.remotes.lock().get_mut(&name) {
            known.is_asked = false;
            known.answer = Some(answer);
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
        // Whatever else is wrong, it is trusted.
        _ => None,
    };
    Ok(Seen { shown, untrusted })
}

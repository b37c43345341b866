//! What is told of certificates that change: that of this server, and the pins of remotes. That one ends is told by health.

use backstop_client::connection::pins::PinChange;
use backstop_notify::Severity;
use jiff::Timestamp;
use serde_json::json;

use super::{Notifier, events};
use crate::tls::Certificate;

impl Notifier {
    /// Tells that the server uses another certificate; `signed`: the key of the one before vouches for it. Blocks for a small file.
    pub(crate) fn certificate_changed(
        &self,
        before: &Certificate,
        now: &Certificate,
        signed: bool,
    ) {
        let time = Timestamp::now().as_second();
        let data = json!({
            "former-fingerprint": before.fingerprint().to_string(),
            "fingerprint": now.fingerprint().to_string(),
            "not-after": now.not_after(),
            "signed": signed,
        });
        let fields = [("type", "certificate")];
        let template = "certificate-changed";
        let event = self
            .host
            .event(time, Severity::Notice, template, data, &fields);
        self.notify(&event);
    }

    /// Tells that the pin of a remote was changed. Blocks for a small file.
    pub(crate) fn pin_changed(&self, remote: &str, change: &PinChange) {
        let time = Timestamp::now().as_second();
        let prints = (change.from.to_string(), change.to.fingerprint.to_string());
        let event = events::trust_changed(
            &self.host,
            time,
            remote,
            (&prints.0, &prints.1),
            &change.proof.to_string(),
        );
        self.notify(&event);
    }
}

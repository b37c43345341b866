//! Certificates and when they expire: the server's own, and those that remotes showed when they were asked last.

use super::families::{ExpositionError, Families, seconds};
use crate::health::Checked;
use crate::server::Server;

pub(super) fn add(
    server: &Server,
    checked: &Checked,
    families: &Families,
) -> Result<(), ExpositionError> {
    let expiry = families.gauges(
        "backstop_certificate_expiry_timestamp_seconds",
        "When a certificate expires: the server's own, or the one that a remote showed last.",
        &["certificate"],
    )?;
    let current = server.certificates().current();
    expiry.show(&["server"], Some(seconds(current.not_after())))?;
    for facts in &checked.certificates {
        if let (Some(remote), Some((_, end))) = (&facts.remote, facts.validity) {
            expiry.show(&[&format!("remote/{remote}")], Some(seconds(end)))?;
        }
    }
    Ok(())
}

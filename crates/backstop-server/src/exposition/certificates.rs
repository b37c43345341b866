//! Certificates and when they expire.

use super::families::{ExpositionError, Families, seconds};
use crate::server::Server;

pub(super) fn add(server: &Server, families: &Families) -> Result<(), ExpositionError> {
    let current = server.certificates().current();
    families
        .gauges(
            "backstop_certificate_expiry_timestamp_seconds",
            "When the server's certificate expires.",
            &["certificate"],
        )?
        .show(&["server"], Some(seconds(current.not_after())))
}

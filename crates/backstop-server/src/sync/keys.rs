//! The keys of syncs: who may use which.

use backstop_format::CryptKey;
use backstop_types::{AuthId, Privileges};

use crate::config::encryption_keys;
use crate::jobs::StartError;
use crate::server::Server;

/// A key to decrypt or, with `encrypts`, to encrypt with, for `owner`. Blocking.
///
/// # Errors
/// `owner` may not use it, there is no such key, or its file cannot be used.
pub(super) fn load(
    server: &Server,
    owner: &AuthId,
    id: &str,
    encrypts: bool,
) -> Result<CryptKey, StartError> {
    let path = format!("/system/encryption-keys/{id}");
    if !server
        .privileges(owner, &path)
        .contains(Privileges::SYS_MODIFY)
    {
        return Err(StartError::Unable(format!(
            "no such key or cannot access key '{id}'"
        )));
    }
    encryption_keys::load(server.config(), id, encrypts)
        .map_err(|error| StartError::Unable(crate::http::error::chain(&error)))
}

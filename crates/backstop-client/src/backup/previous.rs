//! The snapshot that a backup continues: its manifest, and the chunks that need not be uploaded again.
//!
//! Whatever is wrong with it is told and costs a longer upload, never the backup.

use backstop_format::manifest::Manifest;
use backstop_format::{CryptKey, CryptMode};
use std::sync::Arc;

use crate::activity::Activity;
use crate::error::{ClientError, Result};
use crate::writer::{BackupSession, IndexKind};

/// The previous snapshot of the group, with a manifest that may be relied on.
pub(crate) struct PreviousSnapshot {
    /// Its time, in seconds since the epoch.
    pub time: i64,
    pub manifest: Manifest,
}

impl PreviousSnapshot {
    /// Asks the server. `None` if there is no previous snapshot or if it cannot be used.
    pub async fn find(
        session: &BackupSession,
        key: Option<&Arc<CryptKey>>,
        activity: &dyn Activity,
    ) -> Result<Option<Self>> {
        let Some(time) = session.previous_backup_time().await? else {
            activity.info("No previous manifest available.");
            return Ok(None);
        };
        activity.info(&format!(
            "Downloading previous manifest ({})",
            local_time(time)
        ));
        let manifest = match session.previous_manifest(key.map(Arc::as_ref)).await {
            Ok(manifest) => manifest,
            Err(error @ ClientError::Data { .. }) => {
                activity.warn(&format!("Couldn't re-use previous manifest - {error}"));
                return Ok(None);
            }
            Err(error) => {
                activity.warn(&format!("Couldn't download previous manifest - {error}"));
                return Ok(None);
            }
        };
        if let Err(reason) = fits_key(&manifest, key) {
            activity.warn(&format!("Couldn't re-use previous manifest - {reason}"));
            return Ok(None);
        }
        Ok(Some(Self { time, manifest }))
    }

    /// Makes the chunks of an archive usable in the session.
    pub async fn register_chunks(
        &self,
        session: &BackupSession,
        name: &str,
        kind: IndexKind,
        mode: CryptMode,
        activity: &dyn Activity,
    ) {
        let Some(entry) = self.manifest.file(name) else {
            activity.info(&format!(
                "Previous manifest does not contain an archive called '{name}', skipping download.."
            ));
            return;
        };
        if entry.crypt_mode != mode {
            return;
        }
        let result = match kind {
            IndexKind::Fixed => session
                .previous_fixed_index(name, &self.manifest)
                .await
                .map(drop),
            IndexKind::Dynamic => session
                .previous_dynamic_index(name, &self.manifest)
                .await
                .map(drop),
        };
        if let Err(error) = result {
            activity.warn(&format!(
                "Unable to use the previous index of '{name}' - {error}"
            ));
        }
    }
}

/// A manifest of another key must not be continued, nor one of a key that we do not have.
fn fits_key(manifest: &Manifest, key: Option<&Arc<CryptKey>>) -> std::result::Result<(), String> {
    let recorded = manifest.fingerprint().map_err(|error| error.to_string())?;
    match (recorded, key) {
        (Some(recorded), None) => Err(format!("missing key {}", recorded.short_id())),
        (Some(recorded), Some(key)) if recorded != key.fingerprint() => Err(format!(
            "it was made with key {}, this backup uses {}",
            recorded.short_id(),
            key.fingerprint().short_id()
        )),
        _ => Ok(()),
    }
}

/// Local time as in `Wed Dec  4 13:20:37 2019`.
fn local_time(epoch: i64) -> String {
    match jiff::Timestamp::from_second(epoch) {
        Ok(time) => time
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%a %b %e %H:%M:%S %Y")
            .to_string(),
        Err(_) => epoch.to_string(),
    }
}

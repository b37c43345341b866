//! One snapshot: compared with what is here, fetched where it differs, and made visible when it is complete.

use std::sync::Arc;
use std::time::Instant;

use backstop_datastore::{DatastoreError, check_file};
use backstop_format::blob::{DataBlob, MAX_BLOB_SIZE};
use backstop_format::index::AnyIndex;
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptKey, CryptMode};
use backstop_types::{ArchiveName, ByteSize, Snapshot};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::chunks::pull_chunks;
use super::decryption::{DecryptedFile, decrypt_blob, decrypt_index, decrypted_manifest};
use super::error::{Result, SyncError};
use super::group::GroupPull;
use super::in_flight::FILES_AT_ONCE;
use super::report::{Moved, rate};
use super::source::OpenSnapshot;
use super::source_local::{is_encrypted, is_verified};
use super::target::Import;
use super::treatment::{Remark, Treatment, treat};
use crate::http::error::chain;

/// What the target has of a snapshot.
enum Here {
    Nothing,
    /// A finished snapshot.
    Finished(Box<Manifest>),
    /// Its manifest cannot be read, or it was never finished.
    Broken,
}

/// What came of a snapshot that could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was copied.
    Copied,
    /// It was here, and is the same.
    Same,
    /// It is not to be copied: it is gone, or does not pass the filters.
    Left,
}

/// Pulls one snapshot.
///
/// # Errors
/// It could not be had. What is at the target is as before, or complete.
pub(super) async fn pull(
    group: &GroupPull<'_>,
    snapshot: &Snapshot,
    is_corrupt: bool,
) -> Result<Outcome> {
    let run = group.run;
    let time = snapshot.time;
    let here = look(group, snapshot).await?;
    let is_new = matches!(here, Here::Nothing);
    match (is_new, is_corrupt) {
        (true, _) => group.log(format!("{time}: start sync")),
        (false, false) => group.log(format!("re-sync snapshot {time}")),
        (false, true) => group.log(format!("re-sync snapshot {time} due to corruption")),
    }
    let gone = || {
        group.log(format!(
            "{time}: skipped because vanished since start of sync"
        ))
    };
    let Some(source) = run.source.open(group.place.source, snapshot).await? else {
        gone();
        return Ok(Outcome::Left);
    };
    let Some(raw) = source.file(&manifest_name()?).await? else {
        gone();
        return Ok(Outcome::Left);
    };
    let manifest = parse_manifest(raw, snapshot)?;
    if let Here::Finished(own) = &here
        && !is_corrupt
        && is_same(own, &manifest)
    {
        add_client_log(group, snapshot, &source, None).await?;
        group.log(format!("{time}: no data changes"));
        return Ok(Outcome::Same);
    }
    if !run
        .rules
        .admit(is_verified(&manifest), is_encrypted(&manifest))
    {
        group.log(format!(
            "{time}: skipped, did not match verified-only/encrypted-only filter"
        ));
        return Ok(Outcome::Left);
    }
    let own = match &here {
        Here::Finished(own) => Some(&**own),
        _ => None,
    };
    let trusted = own.filter(|_| !is_corrupt);
    let (treatment, remark) = treat(&manifest, trusted, &run.keys).map_err(SyncError::Content)?;
    match remark {
        Remark::Nothing => {}
        Remark::Note(text) => group.log(format!("{time}: {text}")),
        Remark::Warning(text) => run.task.warn(format!("[{}]: {time}: {text}", group.group)),
    }
    let key = match treatment {
        Treatment::AsItIs => None,
        Treatment::Decrypt(key) => Some(key),
        Treatment::Unchanged(key) => {
            add_client_log(group, snapshot, &source, Some(&key)).await?;
            group.log(format!("{time}: no data changes"));
            return Ok(Outcome::Same);
        }
    };
    if own.is_some_and(|own| own.files != manifest.files) {
        check_unlocked(group, snapshot).await?;
    }
    let import = run.target.import(group.place.target, snapshot).await?;
    let pull = SnapshotPull {
        group,
        snapshot,
        source: &source,
        import: &import,
        key,
    };
    let done = pull.pull(manifest, trusted).await;
    import.close().await;
    done?;
    if is_new {
        group.log(format!("{time}: sync done"));
    }
    Ok(Outcome::Copied)
}

struct SnapshotPull<'a> {
    group: &'a GroupPull<'a>,
    snapshot: &'a Snapshot,
    source: &'a OpenSnapshot,
    import: &'a Import,
    /// Decrypts it on its way.
    key: Option<Arc<CryptKey>>,
}

impl SnapshotPull<'_> {
    async fn pull(&self, mut manifest: Manifest, trusted: Option<&Manifest>) -> Result<()> {
        let keeps = trusted.is_some();
        let files: Vec<FileEntry> = stream::iter(manifest.files.clone())
            .map(|entry| async move { self.pull_file(&entry, keeps).await })
            .buffered(FILES_AT_ONCE)
            .try_collect()
            .await?;
        if self.key.is_some() {
            manifest = decrypted_manifest(&manifest, files);
        }
        // What the source found out about its copy says nothing about this one.
        let verified = trusted
            .filter(|own| own.files == manifest.files)
            .and_then(Manifest::verify_state);
        manifest.set_verify_state(verified.as_ref());
        self.import
            .work(move |import| import.finish(&manifest))
            .await?;
        if let Some((name, log)) = client_log(self.source, self.key.as_deref()).await? {
            let is_there = self.import.work({
                let (name, raw) = (name.clone(), log.raw().to_vec());
                move |import| match import.has_client_log() {
                    true => Ok(true),
                    false => import.store_file(&name, &raw).map(|()| false),
                }
            });
            if !is_there.await? {
                self.tell_log(&name);
            }
        }
        Ok(())
    }

    fn tell_log(&self, name: &ArchiveName) {
        let snapshot = self.snapshot;
        self.group
            .log(format!("Snapshot {snapshot}: got backup log file {name}"));
    }

    /// Sees to it that a file is here as the manifest says. Those of a finished snapshot are kept if they are. Returns what a
    /// manifest says of it then.
    async fn pull_file(&self, entry: &FileEntry, keeps: bool) -> Result<FileEntry> {
        let name = file_name(entry)?;
        if keeps {
            let (own, wanted) = (name.clone(), entry.clone());
            if self
                .import
                .work(move |import| import.has(&own, &wanted))
                .await?
            {
                return Ok(entry.clone());
            }
            self.group.log(format!(
                "detected changed file {:?}, it is fetched again",
                name.as_str()
            ));
        }
        let label = format!("{}/{name}", self.snapshot.time);
        self.group.log(format!("{label}: sync archive"));
        let start = Instant::now();
        let Some(raw) = self.source.file(&name).await? else {
            let reason = format!("archive {name} is missing on the source");
            return Err(SyncError::Content(reason));
        };
        let (raw, index) = self.check(raw, &name, entry).await?;
        let file = match (index, &self.key) {
            (Some(index), key) => {
                let pulled = self.pull_index((&name, raw), entry, &index, key.as_ref());
                let file = pulled.await.map_err(|error| match error {
                    SyncError::Content(reason) => {
                        SyncError::Content(format!("archive {name}: {reason}"))
                    }
                    error => error,
                })?;
                self.group.run.report.moved(file.moved);
                self.group.log(format!(
                    "{label}: downloaded {} ({}/s)",
                    ByteSize::binary(file.moved.bytes),
                    rate(file.moved.bytes, start)
                ));
                file
            }
            (None, Some(key)) => {
                let (key, name) = (Arc::clone(key), name.clone());
                let decrypted = self
                    .import
                    .work(move |_| Ok(decrypt_blob(&name, raw, &key)));
                decrypted.await?.map_err(SyncError::Content)?
            }
            (None, None) => DecryptedFile {
                raw,
                entry: entry.clone(),
                moved: Moved::default(),
            },
        };
        let (raw, entry) = (file.raw, file.entry);
        self.import
            .work(move |import| import.store_file(&name, &raw))
            .await?;
        Ok(entry)
    }

    /// Sees to it that the chunks of an index are here; returns the index, which is another one if they were decrypted.
    async fn pull_index(
        &self,
        (name, raw): (&ArchiveName, Vec<u8>),
        entry: &FileEntry,
        index: &AnyIndex,
        key: Option<&Arc<CryptKey>>,
    ) -> Result<DecryptedFile> {
        let run = self.group.run;
        if let Some(key) = key {
            return decrypt_index(run, self.source, (name, index), key).await;
        }
        let is_encrypted = entry.crypt_mode == CryptMode::Encrypt;
        let chunks = &self.group.chunks;
        let place = self.group.place;
        let moved = pull_chunks(run, place, chunks, self.source, index, is_encrypted).await?;
        Ok(DecryptedFile {
            raw,
            entry: entry.clone(),
            moved,
        })
    }

    /// Compares a file with the manifest; returns it, and the index that it is.
    async fn check(
        &self,
        raw: Vec<u8>,
        name: &ArchiveName,
        entry: &FileEntry,
    ) -> Result<(Vec<u8>, Option<AnyIndex>)> {
        let (name, entry) = (name.clone(), entry.clone());
        let checked = self.import.work(move |_| {
            let checked = check_file(&name, &raw, &entry);
            Ok(checked.map(|index| (raw, index)))
        });
        checked.await?.map_err(SyncError::Content)
    }
}

pub(super) fn manifest_name() -> Result<ArchiveName> {
    name(ArchiveName::MANIFEST)
}

/// The name of a file that a manifest lists.
///
/// # Errors
/// [`SyncError::Content`]: it cannot be one.
pub(super) fn file_name(entry: &FileEntry) -> Result<ArchiveName> {
    let name: ArchiveName = entry.filename.parse().map_err(|error| {
        SyncError::Content(format!(
            "its manifest names a file that cannot be - {error}"
        ))
    })?;
    if name.as_str() == ArchiveName::MANIFEST {
        let reason = "its manifest names itself as a file";
        return Err(SyncError::Content(reason.to_owned()));
    }
    Ok(name)
}

fn name(text: &str) -> Result<ArchiveName> {
    text.parse()
        .map_err(|error: backstop_types::NameError| SyncError::Broken(error.to_string()))
}

async fn look(group: &GroupPull<'_>, snapshot: &Snapshot) -> Result<Here> {
    let (ns, snapshot) = (group.place.target.clone(), snapshot.clone());
    let here = group.run.target.work(move |store| {
        if !store.snapshot_exists(&ns, &snapshot) {
            return Ok(Here::Nothing);
        }
        match store.load_manifest(&ns, &snapshot) {
            Ok((manifest, _)) => Ok(Here::Finished(Box::new(manifest))),
            Err(DatastoreError::NoSuchSnapshot(_)) => Ok(Here::Nothing),
            Err(
                DatastoreError::NoSuchFile { .. }
                | DatastoreError::Damaged { .. }
                | DatastoreError::Invalid { .. },
            ) => Ok(Here::Broken),
            Err(error) => Err(error),
        }
    });
    here.await
}

/// Refuses to replace the content of a snapshot that is under a retention lock: that would be as good as removing it.
async fn check_unlocked(group: &GroupPull<'_>, snapshot: &Snapshot) -> Result<()> {
    let (ns, snapshot) = (group.place.target.clone(), snapshot.clone());
    let locked = group
        .run
        .target
        .work(move |store| store.retention_locked(&ns, &snapshot));
    match locked.await? {
        Some(locked) => Err(SyncError::Content(format!(
            "the source has another content: {locked}"
        ))),
        None => Ok(()),
    }
}

pub(super) fn parse_manifest(raw: Vec<u8>, snapshot: &Snapshot) -> Result<Manifest> {
    let manifest = DataBlob::load(raw)
        .and_then(|blob| Manifest::from_blob(&blob))
        .map_err(|error| {
            SyncError::Content(format!(
                "its manifest is damaged at the source - {}",
                chain(&error)
            ))
        })?;
    let group = &snapshot.group;
    let is_own = manifest.backup_type == group.ty.as_str()
        && manifest.backup_id == group.id.as_str()
        && manifest.backup_time == snapshot.time.epoch();
    if !is_own {
        return Err(SyncError::Content(format!(
            "the source gives the manifest of {}/{} at {}",
            manifest.backup_type, manifest.backup_id, manifest.backup_time
        )));
    }
    Ok(manifest)
}

/// Whether two manifests say the same, but for what verifications found.
fn is_same(own: &Manifest, source: &Manifest) -> bool {
    let without = |manifest: &Manifest| {
        let mut manifest = manifest.clone();
        manifest.set_verify_state(None);
        manifest
    };
    without(own) == without(source)
}

/// The client's log at the source, decrypted if there is a key. That there is none, or that it cannot be had, is no error.
pub(super) async fn client_log(
    source: &OpenSnapshot,
    key: Option<&CryptKey>,
) -> Result<Option<(ArchiveName, DataBlob)>> {
    let name = name(ArchiveName::CLIENT_LOG)?;
    let raw = source.file(&name).await.ok().flatten();
    let raw = raw.filter(|raw| raw.len() <= MAX_BLOB_SIZE);
    let log = raw.and_then(|raw| match key {
        None => DataBlob::load(raw).ok(),
        Some(key) => {
            let log = decrypt_blob(&name, raw, key).ok()?;
            DataBlob::load(log.raw).ok()
        }
    });
    Ok(log.map(|log| (name, log)))
}

/// Fetches the client's log for a snapshot that lacks it.
async fn add_client_log(
    group: &GroupPull<'_>,
    snapshot: &Snapshot,
    source: &OpenSnapshot,
    key: Option<&CryptKey>,
) -> Result<()> {
    let (ns, own) = (group.place.target.clone(), snapshot.clone());
    let lacks = group.run.target.work(move |store| {
        let path = store.snapshot_path(&ns, &own);
        Ok(!path.join(ArchiveName::CLIENT_LOG).exists())
    });
    if !lacks.await? {
        return Ok(());
    }
    let Some((name, log)) = client_log(source, key).await? else {
        return Ok(());
    };
    let (ns, own) = (group.place.target.clone(), snapshot.clone());
    group
        .run
        .target
        .work(move |store| store.store_client_log(&ns, &own, &log))
        .await?;
    group.log(format!("Snapshot {snapshot}: got backup log file {name}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use backstop_format::manifest::{VerifyResult, VerifyState};

    use super::super::treatment::tests::manifest;
    use super::*;

    #[test]
    fn a_verification_on_one_side_is_no_change() {
        let own = manifest(b"x", CryptMode::None);
        let mut source = own.clone();
        source.set_verify_state(Some(&VerifyState {
            state: VerifyResult::Ok,
            upid: "UPID".to_owned(),
        }));
        assert!(is_same(&own, &source));
        source.set_notes("changed");
        assert!(!is_same(&own, &source));
    }

    #[test]
    fn the_manifest_of_another_snapshot_is_refused() {
        let blob = manifest(b"x", CryptMode::None).to_blob().unwrap();
        let own: Snapshot = "vm/1/1970-01-01T00:00:07Z".parse().unwrap();
        let other: Snapshot = "vm/2/1970-01-01T00:00:07Z".parse().unwrap();
        assert!(parse_manifest(blob.raw().to_vec(), &own).is_ok());
        let error = parse_manifest(blob.raw().to_vec(), &other).unwrap_err();
        assert!(error.is_of_one_snapshot());
        assert!(parse_manifest(b"nonsense".to_vec(), &own).is_err());
    }
}

//! One snapshot: its files one after the other, its manifest last, in one backup session.

use std::sync::Arc;
use std::time::Instant;

use backstop_client::ClientError;
use backstop_client::writer::BackupSession;
use backstop_datastore::check_file;
use backstop_format::blob::{DataBlob, MAX_BLOB_SIZE};
use backstop_format::index::{AnyIndex, ChunkIndex as _};
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptKey, CryptMode, Digest, Fingerprint};
use backstop_types::{ArchiveName, ByteSize, Snapshot};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::chunks::IndexPush;
use super::group::GroupPush;
use super::target::refused;
use crate::http::error::chain;
use crate::sync::error::{Result, SyncError};
use crate::sync::group::{GROUP_WAIT, PAUSE};
use crate::sync::in_flight::FILES_AT_ONCE;
use crate::sync::report::{Moved, rate};
use crate::sync::snapshot::{client_log, file_name, manifest_name, parse_manifest};
use crate::sync::source::OpenSnapshot;
use crate::sync::source_local::{is_encrypted, is_verified};
use crate::sync::treatment::SOURCE_SIGNATURE;

/// What happens to the content of a snapshot on its way.
#[derive(Clone)]
pub(super) enum Form {
    /// It is sent as it is stored.
    Stored,
    /// It is encrypted with this key.
    Sealed(Arc<CryptKey>),
}

impl Form {
    pub fn key(&self) -> Option<&Arc<CryptKey>> {
        match self {
            Self::Stored => None,
            Self::Sealed(key) => Some(key),
        }
    }
}

/// Pushes one snapshot; tells whether it is there. `has_previous` says whether the target has an older one.
///
/// # Errors
/// [`SyncError::Content`] when it is damaged here, so that the next one may be fine. The target has got nothing of it then.
pub(super) async fn push(
    group: &GroupPush<'_>,
    snapshot: &Snapshot,
    has_previous: bool,
) -> Result<bool> {
    let run = group.run;
    let time = snapshot.time;
    let gone = || {
        group.log(format!(
            "{time}: skipped because vanished since start of sync"
        ))
    };
    let Some(source) = run.source.open(group.place.source, snapshot).await? else {
        gone();
        return Ok(false);
    };
    let Some(raw) = source.file(&manifest_name()?).await? else {
        gone();
        return Ok(false);
    };
    let manifest = parse_manifest(raw, snapshot)?;
    if !run
        .rules
        .admit(is_verified(&manifest), is_encrypted(&manifest))
    {
        group.log(format!(
            "{time}: skipped, did not match verified-only/encrypted-only filter"
        ));
        return Ok(false);
    }
    let Some(form) = form(group, snapshot, &manifest) else {
        return Ok(false);
    };
    let session = begin(group, snapshot).await?;
    let mut push = SnapshotPush {
        group,
        snapshot,
        source: &source,
        session: &session,
        form,
        previous: None,
    };
    if has_previous {
        push.previous = push.previous_manifest().await;
    }
    let manifest = push.files(&manifest).await?;
    push.client_log().await?;
    let finished = session.finish(&manifest).await;
    finished.map_err(|error| refused(&error))?;
    Ok(true)
}

/// Begins to write a snapshot. Waits for whatever else works on its group at the target, for a while: that may be the end of a
/// session whose connection broke.
async fn begin(group: &GroupPush<'_>, snapshot: &Snapshot) -> Result<BackupSession> {
    let start = tokio::time::Instant::now();
    let mut is_told = false;
    loop {
        match group.run.target.begin(group.place.target, snapshot).await {
            Err(error) if is_busy(&error) && start.elapsed() < GROUP_WAIT => {
                if !is_told {
                    is_told = true;
                    let seconds = GROUP_WAIT.as_secs();
                    group.log(format!(
                        "something else works on this group at the target; waiting for it, at most {seconds} seconds"
                    ));
                }
                tokio::time::sleep(PAUSE).await;
            }
            begun => return begun.map_err(|error| refused(&error)),
        }
    }
}

/// Whether a server refuses a session because somebody else holds a lock. The words are those of all servers.
fn is_busy(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Status { status: 400, message, .. }
            if message.contains("unable to acquire") && message.contains("lock")
    )
}

/// What happens to the content of a snapshot; `None`: it must not be sent, which is said.
fn form(group: &GroupPush<'_>, snapshot: &Snapshot, manifest: &Manifest) -> Option<Form> {
    let key = group.run.key.as_ref();
    let form = form_of(key, manifest);
    match &form {
        Some(Form::Sealed(_)) => group.log(format!(
            "Encrypt source snapshot '{snapshot}' on the fly while pushing to remote"
        )),
        Some(Form::Stored) if key.is_some() => group.log(format!(
            "Snapshot '{snapshot}' already encrypted with client key, not re-encrypting with configured active encryption key"
        )),
        Some(Form::Stored) => {}
        None => {
            group.warn(partly_encrypted(snapshot));
            group.run.report.missing([snapshot.time]);
        }
    }
    form
}

/// The same without a word.
pub(super) fn form_of(key: Option<&Arc<CryptKey>>, manifest: &Manifest) -> Option<Form> {
    let Some(key) = key else {
        return Some(Form::Stored);
    };
    let encrypted = manifest.files.iter();
    let encrypted = encrypted.filter(|file| file.crypt_mode == CryptMode::Encrypt);
    match encrypted.count() {
        0 => Some(Form::Sealed(Arc::clone(key))),
        count if count == manifest.files.len() => Some(Form::Stored),
        _ => None,
    }
}

/// Why a snapshot is left out when it would have to be encrypted.
pub(super) fn partly_encrypted(snapshot: &Snapshot) -> String {
    format!("Encountered partially encrypted snapshot '{snapshot}', refuse to re-encrypt and skip")
}

struct SnapshotPush<'a> {
    group: &'a GroupPush<'a>,
    snapshot: &'a Snapshot,
    source: &'a OpenSnapshot,
    session: &'a BackupSession,
    form: Form,
    /// The snapshot before it at the target, if its chunks are of use.
    previous: Option<Manifest>,
}

impl SnapshotPush<'_> {
    async fn previous_manifest(&self) -> Option<Manifest> {
        let key = self.form.key();
        match self.session.previous_manifest(None).await {
            // Chunks of another key have other names.
            Ok(manifest) => match key {
                Some(key) => {
                    let found = manifest.fingerprint().ok().flatten();
                    (found == Some(key.fingerprint())).then_some(manifest)
                }
                None => Some(manifest),
            },
            Err(error) => {
                let (time, error) = (self.snapshot.time, chain(&error));
                self.group.log(format!(
                    "{time}: Could not download previous manifest - {error}"
                ));
                None
            }
        }
    }

    /// Sends all files, several at a time. Returns the manifest of what the target has then.
    async fn files(&self, manifest: &Manifest) -> Result<Manifest> {
        let files: Vec<FileEntry> = stream::iter(manifest.files.clone())
            .map(|entry| async move { self.file(&entry).await })
            .buffered(FILES_AT_ONCE)
            .try_collect()
            .await?;
        let mut sent = manifest.clone();
        // What a verification here found out says nothing about the copy.
        sent.set_verify_state(None);
        let Form::Sealed(key) = &self.form else {
            return Ok(sent);
        };
        let damaged = |error: backstop_format::FormatError| SyncError::Content(chain(&error));
        let of_source = Fingerprint(manifest.hmac(key).map_err(damaged)?);
        sent.files = files;
        sent.set_unprotected(SOURCE_SIGNATURE, of_source.to_string().into());
        sent.sign(key).map_err(damaged)?;
        Ok(sent)
    }

    /// Sends a file. Returns what a manifest says of it then.
    async fn file(&self, entry: &FileEntry) -> Result<FileEntry> {
        let name = file_name(entry)?;
        let time = self.snapshot.time;
        self.group.log(format!("{time}: sync archive {name}"));
        let start = Instant::now();
        let Some(raw) = self.source.file(&name).await? else {
            let reason = format!("archive {name} is missing");
            return Err(SyncError::Content(reason));
        };
        let checked = {
            let (name, entry) = (name.clone(), entry.clone());
            let checked = self.group.run.local.work(move |_| {
                let checked = check_file(&name, &raw, &entry);
                Ok(checked.map(|index| (raw, index)))
            });
            checked.await?.map_err(SyncError::Content)?
        };
        let (sent, moved) = match checked {
            (_, Some(index)) => self.index(&name, entry, &index).await?,
            (raw, None) => self.blob(&name, entry, raw).await?,
        };
        self.group.run.report.moved(moved);
        self.group.log(format!(
            "{time}/{name}: uploaded {} ({}/s)",
            ByteSize::binary(moved.bytes),
            rate(moved.bytes, start)
        ));
        Ok(sent)
    }

    async fn index(
        &self,
        name: &ArchiveName,
        entry: &FileEntry,
        index: &AnyIndex,
    ) -> Result<(FileEntry, Moved)> {
        let previous = self.previous.as_ref();
        if let Some(previous) = previous.filter(|manifest| manifest.file(name.as_str()).is_some()) {
            let reused = self
                .session
                .reuse_previous_index(name.as_str(), previous)
                .await;
            match reused {
                // It costs traffic, nothing else.
                Err(
                    error @ (ClientError::Status { .. }
                    | ClientError::Data { .. }
                    | ClientError::Mismatch { .. }),
                ) => self.group.log(format!(
                    "{}/{name}: the chunks of the previous snapshot are not known - {}",
                    self.snapshot.time,
                    chain(&error)
                )),
                other => other.map_err(|error| refused(&error))?,
            }
        }
        let copy = self.session.copy_index(name.as_str(), index.size()).await;
        let push = IndexPush {
            run: self.group.run,
            source: self.source,
            index,
            is_encrypted: entry.crypt_mode == CryptMode::Encrypt,
            form: &self.form,
        };
        let done = push.run(copy.map_err(|error| refused(&error))?).await;
        let (written, moved) = done.map_err(|error| match error {
            SyncError::Content(reason) => SyncError::Content(format!("archive {name}: {reason}")),
            SyncError::Source(error) => refused(&error),
            error => error,
        })?;
        let sent = self.entry(name, entry, (written.size, written.checksum));
        if self.form.key().is_none() && sent != *entry {
            return Err(SyncError::Content(format!(
                "archive {name} became another one on its way"
            )));
        }
        Ok((sent, moved))
    }

    async fn blob(
        &self,
        name: &ArchiveName,
        entry: &FileEntry,
        raw: Vec<u8>,
    ) -> Result<(FileEntry, Moved)> {
        let blob = self.sealed(name, raw).await?;
        let stored = self.session.upload_blob(name.as_str(), blob).await;
        let (size, checksum) = stored.map_err(|error| refused(&error))?;
        let moved = Moved {
            chunks: 0,
            bytes: size,
        };
        Ok((self.entry(name, entry, (size, checksum)), moved))
    }

    fn entry(&self, name: &ArchiveName, entry: &FileEntry, stored: (u64, Digest)) -> FileEntry {
        let (size, csum) = stored;
        FileEntry {
            filename: name.as_str().to_owned(),
            crypt_mode: match self.form {
                Form::Stored => entry.crypt_mode,
                Form::Sealed(_) => CryptMode::Encrypt,
            },
            size,
            csum,
        }
    }

    /// A blob in the form in which it is sent.
    async fn sealed(&self, name: &ArchiveName, raw: Vec<u8>) -> Result<DataBlob> {
        let key = self.form.key().cloned();
        let sealed = self.group.run.local.work(move |_| {
            let sealed = DataBlob::load(raw).and_then(|blob| match key {
                None => Ok(blob),
                Some(key) => {
                    let plain = blob.decode(None, MAX_BLOB_SIZE)?;
                    DataBlob::encode(&plain, Some(&key), true)
                }
            });
            Ok(sealed)
        });
        let sealed = sealed.await?;
        sealed.map_err(|error| SyncError::Content(format!("file '{name}': {}", chain(&error))))
    }

    /// Sends the log of the client, if there is one that can be used. No manifest names it.
    async fn client_log(&self) -> Result<()> {
        let Some((name, log)) = client_log(self.source, None).await? else {
            return Ok(());
        };
        let log = match self.sealed(&name, log.into_raw()).await {
            Ok(log) => log,
            Err(SyncError::Content(reason)) => {
                self.group.warn(format!(
                    "{}: the log of the client is not sent - {reason}",
                    self.snapshot.time
                ));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let sent = self.session.upload_blob(name.as_str(), log).await;
        sent.map_err(|error| refused(&error))?;
        Ok(())
    }
}

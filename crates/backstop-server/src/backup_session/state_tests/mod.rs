//! The rules of a backup session, one promise per test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod finishing;
mod writers;

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use serde_json::json;

use crate::backup_session::SessionError;
use crate::backup_session::acceptance::SnapshotIdentity;
use crate::backup_session::index_writer::{CloseClaim, ClosedIndex, FIXED_CHUNK_SIZE, IndexKind};
use crate::backup_session::state::{Phase, SessionState, UploadedChunk, blob_file};

const MIB4: u64 = FIXED_CHUNK_SIZE;

fn session() -> SessionState {
    SessionState::new(SnapshotIdentity {
        backup_type: "vm".to_owned(),
        backup_id: "100".to_owned(),
        backup_time: 1_750_000_000,
    })
}

fn digest(tag: u8) -> Digest {
    Digest([tag; 32])
}

fn chunk(tag: u8, size: u64) -> UploadedChunk {
    UploadedChunk {
        digest: digest(tag),
        size: u32::try_from(size).unwrap(),
        stored: 50,
        duplicate: false,
        encrypted: false,
    }
}

fn dynamic_csum(entries: &[(u64, u8)]) -> Digest {
    let mut bytes = Vec::new();
    for (end, tag) in entries {
        bytes.extend_from_slice(&end.to_le_bytes());
        bytes.extend_from_slice(&[*tag; 32]);
    }
    Digest::of(&bytes)
}

fn fixed_csum(tags: &[u8]) -> Digest {
    Digest::of(&tags.iter().flat_map(|tag| [*tag; 32]).collect::<Vec<u8>>())
}

fn claim(chunk_count: u64, size: u64, csum: Digest) -> CloseClaim {
    CloseClaim {
        chunk_count,
        size,
        csum,
    }
}

fn upload(state: &mut SessionState, kind: IndexKind, wid: u16, tag: u8, size: u64) {
    state.register_upload(kind, wid, &chunk(tag, size)).unwrap();
}

fn append(
    state: &mut SessionState,
    kind: IndexKind,
    wid: u16,
    entries: &[(u64, u8)],
) -> Result<(), SessionError> {
    let digests: Vec<Digest> = entries.iter().map(|(_, tag)| digest(*tag)).collect();
    let offsets: Vec<u64> = entries.iter().map(|(offset, _)| *offset).collect();
    state.append(kind, wid, &digests, &offsets, |_| ())
}

fn close(
    state: &mut SessionState,
    kind: IndexKind,
    wid: u16,
    claim: &CloseClaim,
) -> Result<ClosedIndex, SessionError> {
    state.begin_close(kind, wid)?.close(claim)
}

/// A session with one stored dynamic index `root.pxar.didx` of 10 bytes.
fn with_index() -> (SessionState, Digest) {
    let mut state = session();
    let wid = state.create_dynamic("root.pxar.didx").unwrap();
    upload(&mut state, IndexKind::Dynamic, wid, 1, 10);
    append(&mut state, IndexKind::Dynamic, wid, &[(0, 1)]).unwrap();
    let csum = dynamic_csum(&[(10, 1)]);
    let index = close(&mut state, IndexKind::Dynamic, wid, &claim(1, 10, csum)).unwrap();
    state.index_stored(wid, &index).unwrap();
    (state, csum)
}

fn manifest(files: serde_json::Value) -> DataBlob {
    let text = json!({"backup-type": "vm", "backup-id": "100", "backup-time": 1_750_000_000, "files": files});
    DataBlob::encode(text.to_string().as_bytes(), None, true).unwrap()
}

fn entry(name: &str, size: u64, csum: &Digest) -> serde_json::Value {
    json!({"filename": name, "crypt-mode": "none", "size": size, "csum": csum.to_string()})
}

fn finish(
    state: &mut SessionState,
    manifest: DataBlob,
) -> Result<backstop_format::manifest::Manifest, String> {
    state.hold_manifest(manifest).unwrap();
    state
        .begin_finish(|| Ok(()))
        .map_err(|err| err.to_string())?;
    state.final_manifest().map_err(|err| err.to_string())
}

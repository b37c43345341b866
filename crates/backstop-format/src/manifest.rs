//! The manifest of a snapshot: its files, their sizes and checksums, and the signature over them. See
//! `docs/formats/manifest.md`.
//!
//! File names are read as they are: whoever opens a file by one must check it first. Members of `unprotected` that are not
//! known here survive every rewrite.

use std::collections::BTreeMap;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::blob::DataBlob;
use crate::crypt::{CryptKey, CryptMode};
use crate::digest::{Digest, Fingerprint};
use crate::error::{FormatError, Result};

/// Largest manifest text that is read, in bytes.
pub const MAX_MANIFEST_SIZE: usize = 16 << 20;

/// The manifest of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// `vm`, `ct` or `host`.
    pub backup_type: String,
    /// Id of the group.
    pub backup_id: String,
    /// Seconds since 1970; agrees with the name of the snapshot.
    pub backup_time: i64,
    /// The files in the order of their upload, which the signature covers.
    pub files: Vec<FileEntry>,
    /// HMAC over everything but `unprotected`, in hex.
    pub signature: Option<String>,
    /// Members that may change after the backup: an object.
    pub unprotected: Value,
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileEntry {
    /// Name on the server, such as `root.pxar.didx`. Not checked here.
    pub filename: String,
    /// How it is protected; very old manifests do not say.
    #[serde(default)]
    pub crypt_mode: CryptMode,
    /// For an index the size of the archive, for a blob that of the file; in bytes.
    pub size: u64,
    /// For an index the index checksum, for a blob the SHA-256 of the file.
    pub csum: Digest,
}

/// The result of the last verification, as the manifest keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyState {
    /// What was found.
    pub state: VerifyResult,
    /// The task that did it.
    pub upid: String,
}

/// Outcome of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyResult {
    /// All content is as it was written.
    Ok,
    /// Something is missing or damaged.
    Failed,
}

/// What a backup session uploaded, as the manifest keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkUploadStats {
    /// Chunks sent.
    pub count: u64,
    /// Their plaintext, in bytes.
    pub size: u64,
    /// Their encoded form, in bytes.
    pub compressed_size: u64,
    /// How many of them the store had already.
    pub duplicates: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Stored {
    backup_type: String,
    backup_id: String,
    backup_time: i64,
    files: Vec<FileEntry>,
    #[serde(default)]
    unprotected: Value,
    #[serde(default)]
    signature: Option<String>,
}

impl Manifest {
    /// A manifest without files.
    pub fn new(
        backup_type: impl Into<String>,
        backup_id: impl Into<String>,
        backup_time: i64,
    ) -> Self {
        Manifest {
            backup_type: backup_type.into(),
            backup_id: backup_id.into(),
            backup_time,
            files: Vec::new(),
            signature: None,
            unprotected: Value::Object(Map::new()),
        }
    }

    /// Reads the JSON text. A missing `unprotected` and unknown members are no error.
    ///
    /// # Errors
    /// Not JSON, a member is missing or of the wrong type, or more than [`MAX_MANIFEST_SIZE`] bytes.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        if text.len() > MAX_MANIFEST_SIZE {
            return Err(FormatError::TooLarge {
                what: "manifest",
                limit: MAX_MANIFEST_SIZE as u64,
            });
        }
        let stored: Stored = serde_json::from_slice(text).map_err(|error| invalid(&error))?;
        let unprotected = match stored.unprotected {
            Value::Null => Value::Object(Map::new()),
            object @ Value::Object(_) => object,
            _ => {
                return Err(FormatError::InvalidJson {
                    what: "manifest",
                    reason: "'unprotected' is no object".into(),
                });
            }
        };
        Ok(Manifest {
            backup_type: stored.backup_type,
            backup_id: stored.backup_id,
            backup_time: stored.backup_time,
            files: stored.files,
            signature: stored.signature,
            unprotected,
        })
    }

    /// Reads the manifest blob, whose CRC the caller has checked by loading it.
    ///
    /// # Errors
    /// The blob is encrypted or cannot be unpacked; and as [`from_json`](Self::from_json).
    pub fn from_blob(blob: &DataBlob) -> Result<Self> {
        Self::from_json(&blob.decode(None, MAX_MANIFEST_SIZE)?)
    }

    /// The JSON text: indented, members sorted.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut value = self.protected();
        value.insert("unprotected", self.unprotected.clone());
        value.insert(
            "signature",
            self.signature.clone().map_or(Value::Null, Value::String),
        );
        let sorted: BTreeMap<_, _> = value
            .iter()
            .map(|(name, member)| (*name, Sorted(member)))
            .collect();
        serde_json::to_vec_pretty(&sorted).map_err(|error| invalid(&error))
    }

    /// The manifest as the blob that is uploaded and stored: compressed, never encrypted.
    ///
    /// # Errors
    /// The text is larger than [`MAX_MANIFEST_SIZE`].
    pub fn to_blob(&self) -> Result<DataBlob> {
        let text = self.to_json()?;
        if text.len() > MAX_MANIFEST_SIZE {
            return Err(FormatError::TooLarge {
                what: "manifest",
                limit: MAX_MANIFEST_SIZE as u64,
            });
        }
        DataBlob::encode(&text, None, true)
    }

    /// The entry of a file, by its name on the server.
    pub fn file(&self, filename: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.filename == filename)
    }

    /// Appends a file.
    ///
    /// # Errors
    /// A file of that name is listed already.
    pub fn add_file(&mut self, file: FileEntry) -> Result<()> {
        if self.file(&file.filename).is_some() {
            let reason = format!("file '{}' is listed twice", file.filename);
            return Err(FormatError::InvalidJson {
                what: "manifest",
                reason,
            });
        }
        self.files.push(file);
        Ok(())
    }

    /// Signs the manifest and records the key's fingerprint.
    ///
    /// # Errors
    /// [`FormatError::NotCanonical`].
    pub fn sign(&mut self, key: &CryptKey) -> Result<()> {
        self.signature = Some(Digest(self.hmac(key)?).to_string());
        self.set_unprotected(
            "key-fingerprint",
            Value::String(key.fingerprint().to_string()),
        );
        Ok(())
    }

    /// The signature that `key` gives.
    ///
    /// # Errors
    /// [`FormatError::NotCanonical`].
    pub fn hmac(&self, key: &CryptKey) -> Result<[u8; 32]> {
        Ok(key.hmac(&self.canonical()?))
    }

    /// Checks the signature. `Ok(false)`: there is none.
    ///
    /// # Errors
    /// [`FormatError::WrongManifestKey`] when it was made with another key, [`FormatError::WrongSignature`] when the manifest
    /// was changed.
    pub fn verify(&self, key: &CryptKey) -> Result<bool> {
        let Some(signature) = &self.signature else {
            return Ok(false);
        };
        self.check_key(key)?;
        let signature: Digest = signature.parse().map_err(|_| FormatError::WrongSignature)?;
        if key.verify_hmac(&self.canonical()?, signature.as_bytes()) {
            Ok(true)
        } else {
            Err(FormatError::WrongSignature)
        }
    }

    /// Compares the recorded fingerprint, if there is one, with the key's.
    ///
    /// # Errors
    /// [`FormatError::WrongManifestKey`], or the recorded fingerprint is malformed.
    pub fn check_key(&self, key: &CryptKey) -> Result<()> {
        match self.fingerprint()? {
            Some(manifest) if manifest != key.fingerprint() => Err(FormatError::WrongManifestKey {
                manifest,
                given: key.fingerprint(),
            }),
            _ => Ok(()),
        }
    }

    /// Fingerprint of the key that the snapshot was made with.
    ///
    /// # Errors
    /// The recorded fingerprint is malformed.
    pub fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        match self.unprotected.get("key-fingerprint") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => text.parse().map(Some),
            Some(_) => Err(FormatError::InvalidJson {
                what: "manifest",
                reason: "'key-fingerprint' is no text".into(),
            }),
        }
    }

    /// The notes, or an empty text.
    pub fn notes(&self) -> &str {
        self.unprotected
            .get("notes")
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    /// Replaces the notes.
    pub fn set_notes(&mut self, notes: impl Into<String>) {
        self.set_unprotected("notes", Value::String(notes.into()));
    }

    /// The result of the last verification; an unreadable one counts as none.
    pub fn verify_state(&self) -> Option<VerifyState> {
        self.unprotected
            .get("verify_state")
            .and_then(|state| VerifyState::deserialize(state).ok())
    }

    /// Records the result of a verification, or removes it.
    pub fn set_verify_state(&mut self, state: Option<&VerifyState>) {
        match state.and_then(|state| serde_json::to_value(state).ok()) {
            Some(state) => self.set_unprotected("verify_state", state),
            None => self.remove_unprotected("verify_state"),
        }
    }

    /// What the backup uploaded, if the server recorded it.
    pub fn chunk_upload_stats(&self) -> Option<ChunkUploadStats> {
        self.unprotected
            .get("chunk_upload_stats")
            .and_then(|stats| ChunkUploadStats::deserialize(stats).ok())
    }

    /// Records what the backup uploaded.
    pub fn set_chunk_upload_stats(&mut self, stats: ChunkUploadStats) {
        if let Ok(stats) = serde_json::to_value(stats) {
            self.set_unprotected("chunk_upload_stats", stats);
        }
    }

    /// Sets a member of `unprotected`.
    pub fn set_unprotected(&mut self, name: &str, value: Value) {
        if let Value::Object(members) = &mut self.unprotected {
            members.insert(name.to_owned(), value);
        } else {
            self.unprotected = Value::Object(Map::from_iter([(name.to_owned(), value)]));
        }
    }

    /// Removes a member of `unprotected`.
    pub fn remove_unprotected(&mut self, name: &str) {
        if let Value::Object(members) = &mut self.unprotected {
            members.remove(name);
        }
    }

    /// The members that the signature covers.
    fn protected(&self) -> BTreeMap<&'static str, Value> {
        let files = self
            .files
            .iter()
            .map(|file| {
                Value::Object(Map::from_iter([
                    ("filename".to_owned(), file.filename.clone().into()),
                    ("crypt-mode".to_owned(), file.crypt_mode.as_str().into()),
                    ("size".to_owned(), file.size.into()),
                    ("csum".to_owned(), file.csum.to_string().into()),
                ]))
            })
            .collect();
        BTreeMap::from([
            ("backup-type", Value::String(self.backup_type.clone())),
            ("backup-id", Value::String(self.backup_id.clone())),
            ("backup-time", self.backup_time.into()),
            ("files", Value::Array(files)),
        ])
    }

    /// The text that is signed: members sorted by bytes, no white space.
    fn canonical(&self) -> Result<Vec<u8>> {
        let value = self.protected();
        let sorted: BTreeMap<_, _> = value
            .iter()
            .map(|(name, member)| (*name, Sorted(member)))
            .collect();
        serde_json::to_vec(&sorted).map_err(|_| FormatError::NotCanonical {
            reason: "it is not JSON",
        })
    }
}

/// Serialises a value with the members of its objects sorted, whatever order the map keeps.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(members) => {
                let sorted: BTreeMap<&str, &Value> = members
                    .iter()
                    .map(|(name, member)| (name.as_str(), member))
                    .collect();
                let mut map = serializer.serialize_map(Some(sorted.len()))?;
                for (name, member) in sorted {
                    map.serialize_entry(name, &Sorted(member))?;
                }
                map.end()
            }
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Sorted(item))?;
                }
                list.end()
            }
            scalar => scalar.serialize(serializer),
        }
    }
}

fn invalid(error: &serde_json::Error) -> FormatError {
    FormatError::InvalidJson {
        what: "manifest",
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn file(name: &str, crypt_mode: CryptMode, size: u64, csum: u8) -> FileEntry {
        FileEntry {
            filename: name.into(),
            crypt_mode,
            size,
            csum: Digest([csum; 32]),
        }
    }

    fn published_key() -> CryptKey {
        let digest: Digest = "28cdb1a3bef39396c3860e00d448fe7a0efd8244486ab6feb30457681d31597e"
            .parse()
            .unwrap();
        CryptKey::new(digest.0)
    }

    fn published() -> Manifest {
        let mut manifest = Manifest::new("host", "elsa", 1_593_179_765);
        manifest
            .add_file(file("test1.img.fidx", CryptMode::Encrypt, 200, 1))
            .unwrap();
        manifest
            .add_file(file("abc.blob", CryptMode::None, 200, 2))
            .unwrap();
        manifest
    }

    #[test]
    fn the_published_signature_is_made() {
        let mut manifest = published();
        manifest.sign(&published_key()).unwrap();
        assert_eq!(
            manifest.signature.as_deref(),
            Some("d7b446fb7db081662081d4b40fedd858a1d6307a5aff4ecff7d5bf4fd35679e9")
        );
        assert!(manifest.verify(&published_key()).unwrap());
        assert_eq!(
            manifest.fingerprint().unwrap(),
            Some(published_key().fingerprint())
        );
    }

    #[test]
    fn changes_of_the_unprotected_part_keep_the_signature() {
        let mut manifest = published();
        manifest.sign(&published_key()).unwrap();
        manifest.set_notes("two\nlines");
        manifest.set_verify_state(Some(&VerifyState {
            state: VerifyResult::Ok,
            upid: "UPID:x".into(),
        }));
        manifest.set_chunk_upload_stats(ChunkUploadStats {
            count: 3,
            ..Default::default()
        });
        assert!(manifest.verify(&published_key()).unwrap());
        assert_eq!(manifest.notes(), "two\nlines");
        assert_eq!(manifest.verify_state().unwrap().state, VerifyResult::Ok);
        manifest.set_verify_state(None);
        assert_eq!(manifest.verify_state(), None);
        assert_eq!(manifest.chunk_upload_stats().unwrap().count, 3);
    }

    #[test]
    fn changes_of_the_protected_part_are_noticed() {
        let mut signed = published();
        signed.sign(&published_key()).unwrap();
        let key = published_key();
        let changes: [fn(&mut Manifest); 6] = [
            |m| m.backup_id = "elsb".into(),
            |m| m.backup_time += 1,
            |m| m.files[0].size += 1,
            |m| m.files[0].crypt_mode = CryptMode::SignOnly,
            |m| m.files.reverse(),
            |m| m.signature = Some("x".into()),
        ];
        for change in changes {
            let mut manifest = signed.clone();
            change(&mut manifest);
            assert!(matches!(
                manifest.verify(&key),
                Err(FormatError::WrongSignature)
            ));
        }
    }

    #[test]
    fn another_key_is_named_as_the_cause() {
        let mut manifest = published();
        assert!(!manifest.verify(&published_key()).unwrap(), "unsigned");
        manifest.sign(&published_key()).unwrap();
        assert!(matches!(
            manifest.verify(&CryptKey::new([1; 32])),
            Err(FormatError::WrongManifestKey { .. })
        ));
    }

    #[test]
    fn lenient_where_others_wrote_less() {
        let text = br#"{"backup-type":"vm","backup-id":"1","backup-time":5,"files":[{"filename":"a.blob","size":1,"csum":
            "0101010101010101010101010101010101010101010101010101010101010101","extra":1}],"other":[]}"#;
        let manifest = Manifest::from_json(text).unwrap();
        assert_eq!(manifest.files, [file("a.blob", CryptMode::None, 1, 1)]);
        assert_eq!(manifest.unprotected, Value::Object(Map::new()));
    }

    #[test]
    fn unknown_unprotected_members_survive() {
        let mut manifest = published();
        manifest.set_unprotected(
            "from-the-future",
            serde_json::json!({"b": [1, null, {"d": 1, "c": 2}], "a": true}),
        );
        let again = Manifest::from_blob(&manifest.to_blob().unwrap()).unwrap();
        assert_eq!(again, manifest);
    }

    #[test]
    fn text_that_is_no_manifest_is_refused() {
        for text in [&b""[..], b"{}", b"[]", b"null", b"{\"backup-type\":1}"] {
            assert!(Manifest::from_json(text).is_err());
        }
        assert!(matches!(
            Manifest::from_json(&vec![b' '; MAX_MANIFEST_SIZE + 1]),
            Err(FormatError::TooLarge { .. })
        ));
        let text =
            br#"{"backup-type":"vm","backup-id":"1","backup-time":5,"files":[],"unprotected":7}"#;
        assert!(Manifest::from_json(text).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(id: String, time: i64, names in proptest::collection::vec(any::<String>(), 0..4), notes: String) {
            let mut manifest = Manifest::new("ct", id, time);
            for name in names {
                let _ = manifest.add_file(file(&name, CryptMode::SignOnly, u64::MAX, 7));
            }
            manifest.set_notes(notes);
            manifest.sign(&published_key()).unwrap();
            let again = Manifest::from_json(&manifest.to_json().unwrap()).unwrap();
            prop_assert!(again.verify(&published_key()).unwrap());
            prop_assert_eq!(again, manifest);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: Vec<u8>) {
            let _ = Manifest::from_json(&text);
        }
    }
}

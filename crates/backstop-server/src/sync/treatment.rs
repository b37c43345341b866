//! What is done with a snapshot of the source, beside what the target has of it: taken as it is, decrypted, or left. Pure.

use std::sync::Arc;

use backstop_format::manifest::Manifest;
use backstop_format::{CryptKey, CryptMode, Fingerprint, FormatError};

use crate::http::error::chain;

/// The member of a manifest that says which one it was made from, when it was encrypted or decrypted on its way.
pub(super) const SOURCE_SIGNATURE: &str = "sync-source-signature";
/// How it was called before.
pub(super) const FORMER_NAME: &str = "change-detection-fingerprint";

/// A key that decrypts what is pulled.
#[derive(Clone)]
pub(super) struct PullKey {
    /// Its name here.
    pub id: String,
    pub key: Arc<CryptKey>,
}

/// What is done with a snapshot.
pub(super) enum Treatment {
    /// It is stored as the source has it.
    AsItIs,
    /// It is decrypted.
    Decrypt(Arc<CryptKey>),
    /// The target has it already, decrypted.
    Unchanged(Arc<CryptKey>),
}

/// What the log says of it.
pub(super) enum Remark {
    Nothing,
    Note(String),
    Warning(String),
}

/// Decides. `own` is the manifest of the snapshot that the target has finished, whose content is not known to be damaged.
///
/// # Errors
/// Why the snapshot of the target must not be replaced, or the source not be believed.
pub(super) fn treat(
    source: &Manifest,
    own: Option<&Manifest>,
    keys: &[PullKey],
) -> Result<(Treatment, Remark), String> {
    let key_of = |manifest: &Manifest| manifest.fingerprint().ok().flatten();
    let differs =
        || Err("refusing to overwrite local snapshot: content differs from source".to_owned());
    let Some(fingerprint) = key_of(source) else {
        return match own {
            Some(own) if key_of(own).is_some() => Err(
                "refusing to overwrite local encrypted snapshot from unencrypted source".to_owned(),
            ),
            Some(own) if own.files != source.files => differs(),
            _ => Ok((Treatment::AsItIs, Remark::Nothing)),
        };
    };
    if let Some(own) = own
        && let Some(found) = key_of(own)
    {
        return match found == fingerprint {
            true if is_sealed(own) == is_sealed(source) => Ok((Treatment::AsItIs, Remark::Nothing)),
            true => differs(),
            false => Err(
                "Local encrypted or signed snapshot with different key detected, refuse to sync"
                    .to_owned(),
            ),
        };
    }
    let key = keys.iter().find(|key| key.key.fingerprint() == fingerprint);
    match (key, own) {
        (None, Some(_)) if is_sealed(source) => {
            Err("No matching key found, refusing sync".to_owned())
        }
        (None, None) => Ok((
            Treatment::AsItIs,
            match keys.is_empty() {
                true => Remark::Nothing,
                false => Remark::Note("No matching key found, sync without decryption".to_owned()),
            },
        )),
        (Some(key), None) if !is_sealed(source) => Ok((
            Treatment::AsItIs,
            Remark::Warning(format!(
                "Snapshot not fully encrypted, sync as is despite matching key '{}' with fingerprint {fingerprint}",
                key.id
            )),
        )),
        (Some(key), own) if is_sealed(source) => with_key(source, own, key, fingerprint),
        _ => differs(),
    }
}

/// Whether all files are encrypted.
fn is_sealed(manifest: &Manifest) -> bool {
    let mut files = manifest.files.iter();
    files.all(|file| file.crypt_mode == CryptMode::Encrypt)
}

/// The source is encrypted with a key that is at hand; the target has nothing, or something that is not encrypted.
fn with_key(
    source: &Manifest,
    own: Option<&Manifest>,
    key: &PullKey,
    fingerprint: Fingerprint,
) -> Result<(Treatment, Remark), String> {
    let unusable = |error: FormatError| {
        format!(
            "failed to check source manifest signature - {}",
            chain(&error)
        )
    };
    if !source.verify(&key.key).map_err(unusable)? {
        return Err("No signature on source manifest.".to_owned());
    }
    let remark = Remark::Note(format!(
        "Found matching key '{}' with fingerprint {fingerprint}, decrypt on pull",
        key.id
    ));
    let secret = Arc::clone(&key.key);
    match own {
        None => Ok((Treatment::Decrypt(secret), remark)),
        Some(own) => {
            check_relation(source, own, &key.key)?;
            Ok((Treatment::Unchanged(secret), remark))
        }
    }
}

/// Whether a decrypted snapshot here and an encrypted one there are the same: either was made from the other.
fn check_relation(source: &Manifest, own: &Manifest, key: &CryptKey) -> Result<(), String> {
    let (pushed, pulled) = (source_signature(source)?, source_signature(own)?);
    if pushed.is_none() && pulled.is_none() {
        return Err("No sync-source-signature found, refuse to continue!".to_owned());
    }
    let own_hmac = own.hmac(key).map_err(|error| chain(&error))?;
    let was_pushed = pushed == Some(Fingerprint(own_hmac));
    let was_pulled = pulled.is_some() && pulled == signature(source);
    match was_pushed || was_pulled {
        true => Ok(()),
        false => Err("sync-source-signature mismatch, refuse to continue!".to_owned()),
    }
}

fn source_signature(manifest: &Manifest) -> Result<Option<Fingerprint>, String> {
    let member = |name: &str| manifest.unprotected.get(name)?.as_str();
    let text = member(SOURCE_SIGNATURE).or_else(|| member(FORMER_NAME));
    text.map(str::parse::<Fingerprint>)
        .transpose()
        .map_err(|error| format!("failed to parse {SOURCE_SIGNATURE} - {}", chain(&error)))
}

/// The signature of a manifest in the form in which others quote it.
pub(super) fn signature(manifest: &Manifest) -> Option<Fingerprint> {
    let text = manifest.signature.as_deref()?;
    let digest: backstop_format::Digest = text.parse().ok()?;
    Some(Fingerprint(digest.0))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use backstop_format::Digest;
    use backstop_format::manifest::FileEntry;

    use super::*;

    /// Of a snapshot with one file.
    pub(in crate::sync) fn manifest(content: &[u8], mode: CryptMode) -> Manifest {
        let mut manifest = Manifest::new("vm", "1", 7);
        manifest
            .add_file(FileEntry {
                filename: "a.blob".to_owned(),
                crypt_mode: mode,
                size: 5,
                csum: Digest::of(content),
            })
            .unwrap();
        manifest
    }

    fn signed(content: &[u8], mode: CryptMode, key: &CryptKey) -> Manifest {
        let mut manifest = manifest(content, mode);
        manifest.sign(key).unwrap();
        manifest
    }

    fn key(id: &str) -> PullKey {
        PullKey {
            id: id.to_owned(),
            key: Arc::new(CryptKey::generate().unwrap()),
        }
    }

    /// One word for what is done, or the refusal.
    fn treated(source: &Manifest, own: Option<&Manifest>, keys: &[PullKey]) -> String {
        match treat(source, own, keys) {
            Ok((Treatment::AsItIs, _)) => "as it is".to_owned(),
            Ok((Treatment::Decrypt(_), _)) => "decrypt".to_owned(),
            Ok((Treatment::Unchanged(_), _)) => "unchanged".to_owned(),
            Err(reason) => reason,
        }
    }

    #[test]
    fn a_snapshot_is_not_replaced_by_another_one_of_the_same_name() {
        let plain = manifest(b"x", CryptMode::None);
        let other = manifest(b"y", CryptMode::None);
        let (one, two) = (key("one"), key("two"));
        let sealed = signed(b"x", CryptMode::Encrypt, &one.key);
        for (own, source, part) in [
            (&plain, &other, "content differs"),
            (&sealed, &plain, "from unencrypted source"),
            (
                &sealed,
                &signed(b"x", CryptMode::Encrypt, &two.key),
                "with different key",
            ),
            (
                &sealed,
                &signed(b"x", CryptMode::SignOnly, &one.key),
                "content differs",
            ),
            (&plain, &sealed, "No matching key found, refusing sync"),
            (
                &plain,
                &signed(b"x", CryptMode::SignOnly, &one.key),
                "content differs",
            ),
        ] {
            let done = treated(source, Some(own), &[]);
            assert!(done.contains(part), "{done}");
        }
        let again = signed(b"y", CryptMode::Encrypt, &one.key);
        assert_eq!(treated(&again, Some(&sealed), &[]), "as it is");
        assert_eq!(treated(&again, Some(&sealed), &[one]), "as it is");
        assert_eq!(treated(&plain, Some(&plain), &[two]), "as it is");
    }

    #[test]
    fn only_a_snapshot_that_is_wholly_encrypted_with_a_key_at_hand_is_decrypted() {
        let (one, two) = (key("one"), key("two"));
        let sealed = signed(b"x", CryptMode::Encrypt, &one.key);
        let keys = [two.clone(), one.clone()];
        assert_eq!(treated(&sealed, None, &keys), "decrypt");
        assert_eq!(treated(&sealed, None, &[two]), "as it is");
        assert_eq!(
            treated(&manifest(b"x", CryptMode::None), None, &keys),
            "as it is"
        );
        let only_signed = signed(b"x", CryptMode::SignOnly, &one.key);
        assert_eq!(treated(&only_signed, None, &keys), "as it is");
        // Somebody has changed it.
        let mut forged = sealed;
        forged.files[0].size = 6;
        assert!(
            treated(&forged, None, &keys).starts_with("failed to check source manifest signature")
        );
        forged.signature = None;
        assert_eq!(
            treated(&forged, None, &keys),
            "No signature on source manifest."
        );
    }

    #[test]
    fn a_decrypted_copy_is_recognised_in_both_directions_and_nothing_else_is() {
        let one = key("one");
        let keys = [one.clone()];
        let sealed = signed(b"x", CryptMode::Encrypt, &one.key);
        let mut pulled = manifest(b"plain", CryptMode::None);
        assert_eq!(
            treated(&sealed, Some(&pulled), &keys),
            "No sync-source-signature found, refuse to continue!"
        );
        let quoted = signature(&sealed).unwrap().to_string();
        pulled.set_unprotected(SOURCE_SIGNATURE, quoted.into());
        assert_eq!(treated(&sealed, Some(&pulled), &keys), "unchanged");
        let other = signed(b"y", CryptMode::Encrypt, &one.key);
        assert_eq!(
            treated(&other, Some(&pulled), &keys),
            "sync-source-signature mismatch, refuse to continue!"
        );
        let plain = manifest(b"plain", CryptMode::None);
        let mut pushed = other;
        let hmac = Fingerprint(plain.hmac(&one.key).unwrap());
        pushed.set_unprotected(SOURCE_SIGNATURE, hmac.to_string().into());
        assert_eq!(treated(&pushed, Some(&plain), &keys), "unchanged");
        assert!(
            treated(&pushed, Some(&manifest(b"z", CryptMode::None)), &keys).contains("mismatch")
        );
    }
}

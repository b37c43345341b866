//! Keys that sync jobs encrypt and decrypt with: `encryption-keys.cfg`, and for each key a file with the secret.
//!
//! The secret leaves this module twice: when the key is made, for whoever made it, and as [`CryptKey`] for a sync. It is never
//! part of what is listed, and never of an error.

use backstop_datastore::ownership;
use backstop_format::key_file::{KdfKind, KeyFile, KeyTime};
use backstop_format::{CryptKey, Fingerprint};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{ConfigError, ConfigStore, EditError, FileClass, SectionFile, sync};

const TYPE: &str = "sync-key";
const FOLDER: &str = "encryption-keys";
/// Where stock servers keep the files of the keys; a configuration that was copied names them there.
const STOCK_FOLDER: &str = "/etc/proxmox-backup/encryption-keys/";

/// All keys without their secrets, in file order; `archived` says whether those that no longer encrypt are among them.
///
/// # Errors
/// When the configuration cannot be read.
pub fn list(store: &ConfigStore, archived: bool) -> Result<Vec<Map<String, Value>>, ConfigError> {
    let loaded = store.sections(SectionFile::EncryptionKeys)?;
    let ids = loaded.data.iter().map(|(id, _)| id);
    let keys = ids.filter_map(|id| loaded.data.to_api(id));
    Ok(keys.filter(|key| archived || !is_archived(key)).collect())
}

fn is_archived(key: &Map<String, Value>) -> bool {
    key.contains_key("archived-at")
}

fn file_name(id: &str) -> String {
    format!("{FOLDER}/{id}.enc")
}

/// Adds a key: the one in `given`, which is the text of a key file without passphrase, or a new one. Returns its file, with the
/// secret.
///
/// # Errors
/// When the id is taken, the text is no such key, or something cannot be written.
pub fn create(store: &ConfigStore, id: &str, given: Option<&str>) -> Result<KeyFile, EditError> {
    let conflict = |reason: String| EditError::Conflict(reason);
    let key = match given {
        Some(text) => {
            let key: KeyFile = serde_json::from_str(text)
                .map_err(|err| conflict(format!("failed to parse provided key: {err}")))?;
            if key.kdf.is_some() {
                return Err(conflict("protected keys not supported".to_owned()));
            }
            open(&key)
                .map_err(|reason| conflict(format!("failed to load provided key: {reason}")))?;
            key
        }
        None => {
            let key = CryptKey::generate().map_err(|err| conflict(err.to_string()))?;
            KeyFile::unprotected(&key, KeyTime::now(), KeyTime::now())
        }
    };
    store.edit_sections(SectionFile::EncryptionKeys, None, |config| {
        if config.get(id).is_some() {
            return Err(conflict(format!("key with id '{id}' already exists.")));
        }
        let folder = store.path(FOLDER);
        let made = ownership::create_dir_all(&folder, 0o750);
        made.map_err(|source| ConfigError::Io {
            action: "make",
            path: folder,
            source,
        })?;
        let name = file_name(id);
        let _lock = store.lock_named(&format!("{name}.lck"))?;
        if store.read_key(&name)?.is_some_and(|text| !text.is_empty()) {
            return Err(conflict(
                "detected pre-existing key file, refusing to overwrite.".to_owned(),
            ));
        }
        let text = key.to_json().map_err(|err| conflict(err.to_string()))?;
        let text = String::from_utf8_lossy(&text);
        store.write_key(&name, &text, FileClass::Config)?;
        let section = section(&key, &store.path(&name).to_string_lossy());
        config.set(TYPE, id, section).map_err(conflict)
    })?;
    Ok(key)
}

/// What the configuration tells of a key.
fn section(key: &KeyFile, path: &str) -> Map<String, Value> {
    let kdf = match key.kdf {
        None => KdfKind::None,
        Some(backstop_format::key_file::Kdf::Scrypt { .. }) => KdfKind::Scrypt,
        Some(backstop_format::key_file::Kdf::Pbkdf2 { .. }) => KdfKind::Pbkdf2,
    };
    let mut section = Map::new();
    let mut set = |name: &str, value: Value| section.insert(name.to_owned(), value);
    set("path", path.into());
    set("kdf", serde_json::to_value(kdf).unwrap_or_default());
    set("created", key.created.seconds.into());
    set("modified", key.modified.seconds.into());
    if let Some(fingerprint) = key.fingerprint {
        set("fingerprint", fingerprint.to_string().into());
    }
    if let Some(hint) = &key.hint {
        set("hint", hint.as_str().into());
    }
    section
}

/// The sync jobs that use a key: as the one they encrypt with, or with `any` also as one that they may decrypt with.
fn users(store: &ConfigStore, id: &str, any: bool) -> Result<Vec<String>, ConfigError> {
    let jobs = store.sections(SectionFile::Sync)?;
    let uses = |job: &Map<String, Value>| match any {
        true => sync::keys(job).iter().any(|key| key == id),
        false => job.get("active-encryption-key").and_then(Value::as_str) == Some(id),
    };
    let jobs = jobs.data.iter();
    Ok(jobs
        .filter(|(_, section)| uses(&section.properties))
        .map(|(job, _)| job.to_owned())
        .collect())
}

fn check_unused(store: &ConfigStore, id: &str, any: bool) -> Result<(), EditError> {
    let users = users(store, id, any)?;
    let plural = match users.len() {
        0 => return Ok(()),
        1 => "",
        _ => "s",
    };
    let users = users.join(", ");
    Err(EditError::Conflict(format!(
        "encryption key in use by sync job{plural}: '{users}'"
    )))
}

/// Archives a key, which then only decrypts, or takes it back into use: as `wanted` says, else the other way round than it is.
///
/// # Errors
/// When there is no such key, a job encrypts with it, or the configuration cannot be written.
pub fn set_archived(
    store: &ConfigStore,
    id: &str,
    wanted: Option<bool>,
    digest: Option<&str>,
) -> Result<(), EditError> {
    store.edit_sections(SectionFile::EncryptionKeys, digest, |config| {
        let section = config
            .get_typed(TYPE, id)
            .ok_or_else(|| EditError::Conflict(format!("no such {TYPE} '{id}'")))?;
        let mut section = section.properties.clone();
        let archived = is_archived(&section);
        match wanted.unwrap_or(!archived) {
            wanted if wanted == archived => return Ok(()),
            true => {
                check_unused(store, id, false)?;
                let now = jiff::Timestamp::now().as_second();
                section.insert("archived-at".to_owned(), now.into());
            }
            false => {
                section.remove("archived-at");
            }
        }
        config.set(TYPE, id, section).map_err(EditError::Conflict)
    })
}

/// Removes an archived key for good. What was encrypted with it can then only be read by who has a copy of the key. That
/// there is no such key is no error.
///
/// # Errors
/// When a job names it, it is not archived, its file holds another key, or something cannot be written.
pub fn remove(store: &ConfigStore, id: &str, digest: Option<&str>) -> Result<(), EditError> {
    let path = store.edit_sections(SectionFile::EncryptionKeys, digest, |config| {
        check_unused(store, id, true)?;
        let Some(section) = config.get_typed(TYPE, id) else {
            return Ok(None);
        };
        if !is_archived(&section.properties) {
            return Err(EditError::Conflict(
                "key still active, deleting is only possible for archived keys".to_owned(),
            ));
        }
        let path = path(store, id, &section.properties)?;
        if read(store, id, &path)?.fingerprint != fingerprint(&section.properties) {
            return Err(EditError::Conflict(
                "unexpected key detected in key file, refuse to delete".to_owned(),
            ));
        }
        config.remove(id);
        Ok::<_, EditError>(Some(path))
    })?;
    let Some(path) = path else {
        return Ok(());
    };
    std::fs::remove_file(&path).map_err(|source| {
        EditError::Config(ConfigError::Io {
            action: "remove",
            path: path.into(),
            source,
        })
    })
}

fn fingerprint(section: &Map<String, Value>) -> Option<Fingerprint> {
    let text = section.get("fingerprint").and_then(Value::as_str);
    text.and_then(|text| text.parse().ok())
}

/// Where the file of a key is.
fn path(store: &ConfigStore, id: &str, section: &Map<String, Value>) -> Result<String, EditError> {
    let path = section.get("path").and_then(Value::as_str);
    let path =
        path.ok_or_else(|| EditError::Conflict(format!("missing path for encryption key {id}")))?;
    Ok(match path.strip_prefix(STOCK_FOLDER) {
        Some(name) => {
            let own = store.path(FOLDER).join(name);
            own.to_string_lossy().into_owned()
        }
        None => path.to_owned(),
    })
}

fn read(store: &ConfigStore, id: &str, path: &str) -> Result<KeyFile, EditError> {
    let unusable =
        |reason: String| EditError::Conflict(format!("the file of key '{id}', {path}: {reason}"));
    let text = store.read_key(path)?;
    let text = text.ok_or_else(|| unusable("it is not there".to_owned()))?;
    KeyFile::from_json(text.as_bytes()).map_err(|err| unusable(err.to_string()))
}

fn open(file: &KeyFile) -> Result<CryptKey, String> {
    let passphrase = || Ok(Zeroizing::new(Vec::new()));
    file.open(passphrase).map_err(|err| err.to_string())
}

/// The key itself, to decrypt or, with `encrypts`, to encrypt with.
///
/// # Errors
/// When there is no such key, it is archived and shall encrypt, or its file is not what the configuration says.
pub fn load(store: &ConfigStore, id: &str, encrypts: bool) -> Result<CryptKey, EditError> {
    let _lock = store.lock(SectionFile::EncryptionKeys)?;
    let loaded = store.sections(SectionFile::EncryptionKeys)?;
    let section = loaded.data.get_typed(TYPE, id);
    let section = &section
        .ok_or_else(|| EditError::Conflict(format!("no such {TYPE} '{id}'")))?
        .properties;
    if encrypts && is_archived(section) {
        return Err(EditError::Conflict(format!(
            "cannot load archived encryption key {id}"
        )));
    }
    let file = read(store, id, &path(store, id, section)?)?;
    let key = open(&file).map_err(|reason| EditError::Conflict(format!("key '{id}': {reason}")))?;
    match fingerprint(section) {
        Some(wanted) if wanted != key.fingerprint() => Err(EditError::Conflict(format!(
            "loaded key does not match the config for key {id}"
        ))),
        _ => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn setting() -> (tempfile::TempDir, ConfigStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::new(dir.path());
        (dir, store)
    }

    fn ids(store: &ConfigStore, archived: bool) -> Vec<String> {
        let keys = list(store, archived).unwrap();
        let ids = keys
            .iter()
            .map(|key| key["id"].as_str().unwrap().to_owned());
        ids.collect()
    }

    #[test]
    fn a_key_is_kept_for_nobody_else_and_removed_only_when_it_is_archived_and_unused() {
        let (dir, store) = setting();
        let made = create(&store, "key1", None).unwrap();
        let file = dir.path().join("encryption-keys/key1.enc");
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o640);
        assert_eq!(mode(&dir.path().join("encryption-keys")), 0o750);
        let loaded = load(&store, "key1", true).unwrap();
        assert_eq!(Some(loaded.fingerprint()), made.fingerprint);
        let listed = format!("{:?}", list(&store, true).unwrap());
        assert!(!listed.contains("data"), "{listed}");
        for (result, text) in [
            (
                create(&store, "key1", None).map(|_| ()),
                "key with id 'key1' already exists.",
            ),
            (remove(&store, "key1", None), "key still active"),
            (
                remove(&store, "other", None)
                    .and_then(|()| set_archived(&store, "other", None, None)),
                "no such sync-key 'other'",
            ),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
        let job =
            "sync: push1\n\tactive-encryption-key key1\n\tstore store1\n\tremote-store store2\n";
        std::fs::write(dir.path().join("sync.cfg"), job).unwrap();
        let error = set_archived(&store, "key1", None, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "encryption key in use by sync job: 'push1'"
        );
        std::fs::write(dir.path().join("sync.cfg"), "").unwrap();
        set_archived(&store, "key1", None, None).unwrap();
        assert_eq!(
            (ids(&store, false).len(), ids(&store, true)),
            (0, vec!["key1".to_owned()])
        );
        assert!(load(&store, "key1", true).is_err());
        load(&store, "key1", false).unwrap();
        remove(&store, "key1", None).unwrap();
        assert!(!file.exists() && ids(&store, true).is_empty());
    }

    #[test]
    fn only_a_bare_key_is_taken_and_one_that_was_exchanged_is_not_used() {
        let (dir, store) = setting();
        let key = CryptKey::generate().unwrap();
        let now = KeyTime::now();
        let sealed = KeyFile::protected(&key, KdfKind::Pbkdf2, b"secret", now, now, None).unwrap();
        let text = |file: &KeyFile| String::from_utf8(file.to_json().unwrap().to_vec()).unwrap();
        let refused = |text: &str| create(&store, "key1", Some(text)).unwrap_err().to_string();
        assert_eq!(refused(&text(&sealed)), "protected keys not supported");
        assert!(refused("{nope").starts_with("failed to parse provided key: "));
        let bare = KeyFile::unprotected(&key, now, now);
        create(&store, "key1", Some(&text(&bare))).unwrap();
        assert_eq!(
            load(&store, "key1", true).unwrap().fingerprint(),
            key.fingerprint()
        );
        let other = KeyFile::unprotected(&CryptKey::generate().unwrap(), now, now);
        std::fs::write(dir.path().join("encryption-keys/key1.enc"), text(&other)).unwrap();
        let error = load(&store, "key1", false).unwrap_err().to_string();
        assert_eq!(error, "loaded key does not match the config for key key1");
        set_archived(&store, "key1", None, None).unwrap();
        assert!(remove(&store, "key1", None).is_err());
    }

    #[test]
    fn keys_of_a_stock_server_are_found_where_its_configuration_was_copied_to() {
        let (dir, store) = setting();
        let fixtures = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-4.2.3/etc-proxmox-backup"
        );
        std::fs::create_dir(dir.path().join(FOLDER)).unwrap();
        for name in ["encryption-keys.cfg", "encryption-keys/synckey1.enc"] {
            std::fs::copy(format!("{fixtures}/{name}"), dir.path().join(name)).unwrap();
        }
        let key = load(&store, "synckey1", true).unwrap();
        assert!(key.fingerprint().to_string().starts_with("d8:8f:09:f4"));
    }
}

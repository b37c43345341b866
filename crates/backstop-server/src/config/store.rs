//! All files of the configuration directory, cached as long as they do not change on disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_format::Digest;
use backstop_types::acl::AclTree;
use backstop_types::config_schema as schema;
use backstop_types::section_config::{SectionConfig, SectionType};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::file::{ConfigDir, Stamp};
use super::{Changes, ConfigError, ConfigLock, FileClass, NodeConfig};
use crate::Roots;

/// A section file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SectionFile {
    /// Users and API tokens.
    User,
    /// Realms.
    Domains,
    /// Datastores.
    Datastore,
    /// Remote servers.
    Remote,
    /// Sync jobs.
    Sync,
    /// Prune jobs.
    Prune,
    /// Verification jobs.
    Verification,
    /// Rate limits.
    TrafficControl,
    /// Object storage endpoints.
    S3,
    /// Keys of sync jobs.
    EncryptionKeys,
    /// Metric servers.
    MetricServer,
    /// Notification targets and matchers.
    Notifications,
    /// Secrets of notification targets.
    NotificationsPrivate,
}

impl SectionFile {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::User,
        Self::Domains,
        Self::Datastore,
        Self::Remote,
        Self::Sync,
        Self::Prune,
        Self::Verification,
        Self::TrafficControl,
        Self::S3,
        Self::EncryptionKeys,
        Self::MetricServer,
        Self::Notifications,
        Self::NotificationsPrivate,
    ];

    /// The file's name.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::User => "user.cfg",
            Self::Domains => "domains.cfg",
            Self::Datastore => "datastore.cfg",
            Self::Remote => "remote.cfg",
            Self::Sync => "sync.cfg",
            Self::Prune => "prune.cfg",
            Self::Verification => "verification.cfg",
            Self::TrafficControl => "traffic-control.cfg",
            Self::S3 => "s3.cfg",
            Self::EncryptionKeys => "encryption-keys.cfg",
            Self::MetricServer => "metricserver.cfg",
            Self::Notifications => "notifications.cfg",
            Self::NotificationsPrivate => "notifications-priv.cfg",
        }
    }

    /// The name of its lock file.
    #[must_use]
    pub fn lock_name(self) -> String {
        format!(".{}.lck", self.file_name().trim_end_matches(".cfg"))
    }

    fn types(self) -> &'static [SectionType] {
        match self {
            Self::User => schema::USER,
            Self::Domains => schema::DOMAINS,
            Self::Datastore => schema::DATASTORE,
            Self::Remote => schema::REMOTE,
            Self::Sync => schema::SYNC,
            Self::Prune => schema::PRUNE,
            Self::Verification => schema::VERIFICATION,
            Self::TrafficControl => schema::TRAFFIC_CONTROL,
            Self::S3 => schema::S3,
            Self::EncryptionKeys => schema::ENCRYPTION_KEYS,
            Self::MetricServer => schema::METRIC_SERVER,
            Self::Notifications => schema::NOTIFICATIONS,
            Self::NotificationsPrivate => schema::NOTIFICATIONS_PRIVATE,
        }
    }

    const fn class(self) -> FileClass {
        match self {
            Self::NotificationsPrivate => FileClass::Secret,
            _ => FileClass::Config,
        }
    }
}

/// A file that holds a JSON object of secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JsonFile {
    /// Hashes of passwords in the realm `pbs`, by user name.
    Shadow,
    /// Hashes of token secrets, by token id.
    TokenShadow,
    /// Second factors.
    Tfa,
    /// API tokens that only add; no secret, and no file of stock servers.
    AppendOnly,
    /// Passwords with which directories are searched, by realm. Guarded by the lock of `domains.cfg`, which whoever
    /// changes it holds.
    LdapPasswords,
    /// Up to which time tickets of users are refused. Not a file of stock servers.
    Revocations,
    /// Who may scrape metrics. Not a file of stock servers.
    Metrics,
    /// How long sessions last. Not a file of stock servers.
    Sessions,
    /// What is known of remotes beside `remote.cfg`. No secret, and no file of stock servers.
    Remotes,
    /// The continuity chain of the server's certificates, and how long they are announced. No secret, and no file of stock servers.
    Certificate,
    /// The certificate that is announced, with its key. Not a file of stock servers.
    NextCertificate,
    /// How often backups are expected, and maintenance windows. No secret, and no file of stock servers.
    Health,
    /// Who is told of finished runs, by name; their URLs are secrets. Not a file of stock servers.
    Heartbeats,
}

impl JsonFile {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Shadow,
        Self::TokenShadow,
        Self::Tfa,
        Self::AppendOnly,
        Self::LdapPasswords,
        Self::Revocations,
        Self::Metrics,
        Self::Sessions,
        Self::Remotes,
        Self::Certificate,
        Self::NextCertificate,
        Self::Health,
        Self::Heartbeats,
    ];

    /// The file's name.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow.json",
            Self::TokenShadow => "token.shadow",
            Self::Tfa => "tfa.json",
            Self::AppendOnly => "backstop-append-only.json",
            Self::LdapPasswords => "ldap_passwords.json",
            Self::Revocations => "backstop-revocations.json",
            Self::Metrics => "backstop-metrics.json",
            Self::Sessions => "backstop-sessions.json",
            Self::Remotes => "backstop-remotes.json",
            Self::Certificate => "backstop-certificate.json",
            Self::NextCertificate => "backstop-next-certificate.json",
            Self::Health => "backstop-health.json",
            Self::Heartbeats => "backstop-heartbeats.json",
        }
    }

    const fn class(self) -> FileClass {
        match self {
            Self::Shadow
            | Self::Tfa
            | Self::LdapPasswords
            | Self::NextCertificate
            | Self::Heartbeats => FileClass::Secret,
            Self::TokenShadow => FileClass::Shared,
            Self::AppendOnly
            | Self::Revocations
            | Self::Sessions
            | Self::Remotes
            | Self::Metrics
            | Self::Certificate
            | Self::Health => FileClass::Config,
        }
    }

    /// The name of its lock file, unless another file's lock guards it.
    fn lock_name(self) -> Option<String> {
        (self != Self::LdapPasswords).then(|| format!("{}.lock", self.file_name()))
    }

    fn text(self, map: &Map<String, Value>) -> Result<String, serde_json::Error> {
        match self {
            Self::TokenShadow | Self::Tfa => serde_json::to_string(map),
            _ => serde_json::to_string_pretty(map),
        }
    }
}

/// A file's content with the digest of its bytes.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The content.
    pub data: T,
    /// SHA-256 of the file's bytes; an absent file counts as empty.
    pub digest: Digest,
}

impl<T> Loaded<T> {
    /// Refuses when `expected` is given and is not this file's digest.
    ///
    /// # Errors
    /// [`ConfigError::Modified`].
    pub fn check_digest(&self, expected: Option<&str>) -> Result<(), ConfigError> {
        match expected {
            Some(expected) if expected != self.digest.to_string() => Err(ConfigError::Modified),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Cached<T> {
    stamp: Option<Stamp>,
    loaded: Arc<Loaded<T>>,
}

/// The configuration directory.
#[derive(Debug)]
pub struct ConfigStore {
    dir: ConfigDir,
    run: PathBuf,
    sections: Mutex<HashMap<SectionFile, Cached<SectionConfig>>>,
    acl: Mutex<Option<Cached<AclTree>>>,
}

/// Name of the file of access rules.
const ACL_FILE: &str = "acl.cfg";
/// Name of the file of the host.
const NODE_FILE: &str = "node.cfg";

impl ConfigStore {
    /// The configuration in the directory `etc` alone, which must exist; what changes with each login is kept in `run` below it.
    #[must_use]
    pub fn new(etc: impl Into<PathBuf>) -> Self {
        let etc = etc.into();
        let run = etc.join("run");
        Self::with_run(etc, run)
    }

    /// The configuration of an installation, whose directories must exist.
    #[must_use]
    pub fn of(roots: &Roots) -> Self {
        Self::with_run(roots.etc(), roots.run())
    }

    fn with_run(etc: PathBuf, run: PathBuf) -> Self {
        Self {
            dir: ConfigDir::new(etc),
            run,
            sections: Mutex::new(HashMap::new()),
            acl: Mutex::new(None),
        }
    }

    /// The same; each file that is replaced is noted in `changes`.
    #[must_use]
    pub fn noting(mut self, changes: Changes) -> Self {
        self.dir.note_changes_in(changes);
        self
    }

    /// The path of a file in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path(name)
    }

    /// The directory for what changes with each login, such as counts of failures. It need not exist.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// Whether a section file exists.
    #[must_use]
    pub fn exists(&self, file: SectionFile) -> bool {
        self.dir.path(file.file_name()).exists()
    }

    /// The content of a section file.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn sections(&self, file: SectionFile) -> Result<Arc<Loaded<SectionConfig>>, ConfigError> {
        let name = file.file_name();
        let stamp = self.dir.stamp(name)?;
        if let Some(cached) = self
            .sections
            .lock()
            .get(&file)
            .filter(|cached| cached.stamp == stamp)
        {
            return Ok(Arc::clone(&cached.loaded));
        }
        // The stamp is older than what is read next: a change in between is seen next time.
        let loaded = Arc::new(self.read_sections(file)?);
        let cached = Cached {
            stamp,
            loaded: Arc::clone(&loaded),
        };
        self.sections.lock().insert(file, cached);
        Ok(loaded)
    }

    fn read_sections(&self, file: SectionFile) -> Result<Loaded<SectionConfig>, ConfigError> {
        let text = self.dir.read(file.file_name())?;
        let path = self.dir.path(file.file_name());
        let data = SectionConfig::parse(file.types(), &path.to_string_lossy(), &text)?;
        Ok(Loaded {
            data,
            digest: Digest::of(text.as_bytes()),
        })
    }

    /// Takes the lock of a section file, for callers that change several files at once.
    ///
    /// # Errors
    /// When somebody else holds it for 10 seconds.
    pub fn lock(&self, file: SectionFile) -> Result<ConfigLock, ConfigError> {
        self.dir.lock(&file.lock_name())
    }

    /// Changes a section file under its lock. Nothing is written when `edit` fails or changes
    /// nothing.
    ///
    /// # Errors
    /// When it cannot be locked, read or written, when `digest` is not its digest, and what
    /// `edit` reports.
    pub fn edit_sections<T, E: From<ConfigError>>(
        &self,
        file: SectionFile,
        digest: Option<&str>,
        edit: impl FnOnce(&mut SectionConfig) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.lock(file)?;
        let loaded = self.read_sections(file)?;
        loaded.check_digest(digest)?;
        let mut data = loaded.data.clone();
        let result = edit(&mut data)?;
        if data != loaded.data {
            let path = self.dir.path(file.file_name());
            let text = data
                .to_text(&path.to_string_lossy())
                .map_err(ConfigError::from)?;
            self.dir
                .replace(file.file_name(), text.as_bytes(), file.class())?;
        }
        Ok(result)
    }

    /// The access rules.
    ///
    /// # Errors
    /// When they cannot be read or understood.
    pub fn acl(&self) -> Result<Arc<Loaded<AclTree>>, ConfigError> {
        let stamp = self.dir.stamp(ACL_FILE)?;
        if let Some(cached) = self
            .acl
            .lock()
            .as_ref()
            .filter(|cached| cached.stamp == stamp)
        {
            return Ok(Arc::clone(&cached.loaded));
        }
        let loaded = Arc::new(self.read_acl()?);
        *self.acl.lock() = Some(Cached {
            stamp,
            loaded: Arc::clone(&loaded),
        });
        Ok(loaded)
    }

    fn read_acl(&self) -> Result<Loaded<AclTree>, ConfigError> {
        let text = self.dir.read(ACL_FILE)?;
        let data = AclTree::parse(&self.dir.path(ACL_FILE).to_string_lossy(), &text)?;
        Ok(Loaded {
            data,
            digest: Digest::of(text.as_bytes()),
        })
    }

    /// Changes the access rules under their lock.
    ///
    /// # Errors
    /// As for [`Self::edit_sections`].
    pub fn edit_acl<T, E: From<ConfigError>>(
        &self,
        digest: Option<&str>,
        edit: impl FnOnce(&mut AclTree) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.dir.lock(".acl.lck")?;
        let loaded = self.read_acl()?;
        loaded.check_digest(digest)?;
        let mut data = loaded.data.clone();
        let result = edit(&mut data)?;
        if data != loaded.data {
            self.dir
                .replace(ACL_FILE, data.to_text().as_bytes(), FileClass::Config)?;
        }
        Ok(result)
    }

    /// The settings of the host.
    ///
    /// # Errors
    /// When they cannot be read or understood.
    pub fn node(&self) -> Result<Loaded<NodeConfig>, ConfigError> {
        let text = self.dir.read(NODE_FILE)?;
        let data = NodeConfig::parse(&self.dir.path(NODE_FILE), &text)?;
        Ok(Loaded {
            data,
            digest: Digest::of(text.as_bytes()),
        })
    }

    /// Changes the settings of the host under their lock.
    ///
    /// # Errors
    /// As for [`Self::edit_sections`].
    pub fn edit_node<T, E: From<ConfigError>>(
        &self,
        digest: Option<&str>,
        edit: impl FnOnce(&mut NodeConfig) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.dir.lock(".node.lck")?;
        let loaded = self.node()?;
        loaded.check_digest(digest)?;
        let mut data = loaded.data.clone();
        let result = edit(&mut data)?;
        if data != loaded.data {
            self.dir
                .replace(NODE_FILE, data.to_text()?.as_bytes(), FileClass::Config)?;
        }
        Ok(result)
    }

    /// The content of a JSON file; an absent file is empty.
    ///
    /// # Errors
    /// When it cannot be read or is not a JSON object.
    pub fn json(&self, file: JsonFile) -> Result<Map<String, Value>, ConfigError> {
        let text = Zeroizing::new(self.dir.read(file.file_name())?);
        if text.trim().is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_str(&text).map_err(|error| ConfigError::Json {
            path: self.dir.path(file.file_name()),
            line: error.line(),
            column: error.column(),
        })
    }

    /// Changes a JSON file under its lock.
    ///
    /// # Errors
    /// When it cannot be locked, read or written.
    pub fn edit_json<T>(
        &self,
        file: JsonFile,
        edit: impl FnOnce(&mut Map<String, Value>) -> T,
    ) -> Result<T, ConfigError> {
        let lock_name = file.lock_name();
        let _lock = lock_name.map(|name| self.dir.lock(&name)).transpose()?;
        let old = self.json(file)?;
        let mut map = old.clone();
        let result = edit(&mut map);
        if map != old {
            let text = file
                .text(&map)
                .map_err(|error| ConfigError::Invalid(error.to_string()))?;
            self.dir
                .replace(file.file_name(), text.as_bytes(), file.class())?;
        }
        Ok(result)
    }

    /// Whether each file can be read, by its name; an absent one can. No content of a file with secrets is in an error. Blocks for
    /// small files.
    pub fn check(&self) -> Vec<(&'static str, Result<(), ConfigError>)> {
        let sections = SectionFile::ALL.into_iter().map(|file| {
            let read = self.sections(file).map(|_| ());
            (file.file_name(), read)
        });
        let json = JsonFile::ALL.into_iter().map(|file| {
            let read = self.json(file).map(|_| ());
            (file.file_name(), read)
        });
        let others = [
            (ACL_FILE, self.acl().map(|_| ())),
            (NODE_FILE, self.node().map(|_| ())),
        ];
        sections.chain(others).chain(json).collect()
    }

    /// Tells apart versions of a JSON file without reading it; `None` when it is absent.
    pub(crate) fn json_stamp(&self, file: JsonFile) -> Result<Option<Stamp>, ConfigError> {
        self.dir.stamp(file.file_name())
    }

    /// Reads a small file that is no configuration, such as a key; `None` when it is absent.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read_key(&self, name: &str) -> Result<Option<Zeroizing<String>>, ConfigError> {
        if self.dir.stamp(name)?.is_none() {
            return Ok(None);
        }
        self.dir.read(name).map(|text| Some(Zeroizing::new(text)))
    }

    /// Writes a small file that is no configuration, such as a key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_key(
        &self,
        name: &str,
        text: &str,
        class: FileClass,
    ) -> Result<(), ConfigError> {
        self.dir.replace(name, text.as_bytes(), class)
    }

    /// Takes a lock by its file name.
    ///
    /// # Errors
    /// When somebody else holds it for 10 seconds.
    pub(crate) fn lock_named(&self, name: &str) -> Result<ConfigLock, ConfigError> {
        self.dir.lock(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    fn store() -> (tempfile::TempDir, ConfigStore) {
        let dir = tempfile::tempdir().unwrap();
        let fixtures = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-3.2.4/etc-proxmox-backup"
        );
        for entry in std::fs::read_dir(fixtures).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
        let store = ConfigStore::new(dir.path());
        (dir, store)
    }

    #[test]
    fn digests_equal_those_that_the_reference_server_sent() {
        let (_dir, store) = store();
        // The files were changed after some captures; these were not.
        let digest = store
            .sections(SectionFile::User)
            .unwrap()
            .digest
            .to_string();
        assert_eq!(
            digest,
            "410c218e71106057847c499a7c031d22b8073e45e1c057d0dde0dfa7cdba7c17"
        );
        let digest = store.acl().unwrap().digest.to_string();
        assert_eq!(
            digest,
            "dceff0456cc5eb7a62cf8843efb3bb25355558af6b7bd271fe4ddc0083c3f03b"
        );
    }

    #[test]
    fn a_change_on_disk_is_seen_at_once() {
        let (dir, store) = store();
        assert!(
            store
                .sections(SectionFile::Prune)
                .unwrap()
                .data
                .get("prune1")
                .is_some()
        );
        let first = store.sections(SectionFile::Prune).unwrap();
        let second = store.sections(SectionFile::Prune).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        std::fs::write(
            dir.path().join("prune.cfg"),
            "prune: other\n\tstore store1\n\tschedule daily\n",
        )
        .unwrap();
        assert!(
            store
                .sections(SectionFile::Prune)
                .unwrap()
                .data
                .get("other")
                .is_some()
        );
        std::fs::remove_file(dir.path().join("prune.cfg")).unwrap();
        assert!(store.sections(SectionFile::Prune).unwrap().data.is_empty());
    }

    #[test]
    fn an_edit_with_an_old_digest_changes_nothing() {
        let (dir, store) = store();
        let before = std::fs::read(dir.path().join("prune.cfg")).unwrap();
        let error = store
            .edit_sections(SectionFile::Prune, Some(&"0".repeat(64)), |config| {
                config.remove("prune1");
                Ok::<_, ConfigError>(())
            })
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "detected modified configuration - file changed by other user? Try again."
        );
        assert_eq!(std::fs::read(dir.path().join("prune.cfg")).unwrap(), before);
        let digest = store
            .sections(SectionFile::Prune)
            .unwrap()
            .digest
            .to_string();
        store
            .edit_sections(SectionFile::Prune, Some(&digest), |config| {
                config.remove("prune1");
                Ok::<_, ConfigError>(())
            })
            .unwrap();
        assert!(
            store
                .sections(SectionFile::Prune)
                .unwrap()
                .data
                .get("prune1")
                .is_none()
        );
    }

    #[test]
    fn json_files_keep_their_form_and_mode() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, store) = store();
        let shadow = std::fs::read_to_string(dir.path().join("shadow.json")).unwrap();
        store
            .edit_json(JsonFile::Shadow, |map| map.insert("zz".into(), json!("x")))
            .unwrap();
        store
            .edit_json(JsonFile::Shadow, |map| map.remove("zz"))
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("shadow.json")).unwrap(),
            shadow
        );
        let mode = std::fs::metadata(dir.path().join("shadow.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(dir.path().join("shadow.json.lock").exists());
    }

    #[test]
    fn a_broken_secret_file_is_reported_without_its_content() {
        let (dir, store) = store();
        std::fs::write(dir.path().join("shadow.json"), "{\"a\": \"hush").unwrap();
        let error = store.json(JsonFile::Shadow).unwrap_err().to_string();
        assert!(
            error.contains("shadow.json") && !error.contains("hush"),
            "{error}"
        );
    }
}

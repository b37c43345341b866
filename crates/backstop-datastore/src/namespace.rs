//! Namespaces: directories `ns/<name>` below a datastore or below each other.

use std::path::PathBuf;

use backstop_types::Namespace;
use backstop_types::record::DeleteStats;

use crate::datastore::Datastore;
use crate::dir_listing;
use crate::error::{DatastoreError, Result};
use crate::retention_lock::permit::refuse;

/// What became of a namespace that was to be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceRemoval {
    /// Whether all of it is gone.
    pub complete: bool,
    /// What was removed in it.
    pub stats: DeleteStats,
}

impl Datastore {
    /// The directory of a namespace.
    pub fn namespace_path(&self, namespace: &Namespace) -> PathBuf {
        self.path().join(namespace.to_path())
    }

    /// Whether a namespace exists; the root does.
    pub fn namespace_exists(&self, namespace: &Namespace) -> bool {
        namespace.is_root() || self.namespace_path(namespace).is_dir()
    }

    /// Fails when a namespace does not exist.
    pub(crate) fn require_namespace(&self, namespace: &Namespace) -> Result<()> {
        if self.namespace_exists(namespace) {
            Ok(())
        } else {
            Err(DatastoreError::NoSuchNamespace(namespace.clone()))
        }
    }

    /// The namespace and those below it down to `max_depth` levels, parents before their children, siblings sorted.
    ///
    /// # Errors
    /// The namespace does not exist, or the disk fails.
    pub fn namespaces(
        &self,
        parent: &Namespace,
        max_depth: Option<usize>,
    ) -> Result<Vec<Namespace>> {
        self.require_namespace(parent)?;
        let mut found = Vec::new();
        self.collect_namespaces(
            parent,
            max_depth.unwrap_or(Namespace::MAX_DEPTH),
            &mut found,
        )?;
        Ok(found)
    }

    fn collect_namespaces(
        &self,
        parent: &Namespace,
        depth: usize,
        found: &mut Vec<Namespace>,
    ) -> Result<()> {
        found.push(parent.clone());
        if depth == 0 {
            return Ok(());
        }
        for child in self.child_namespaces(parent)? {
            self.collect_namespaces(&child, depth - 1, found)?;
        }
        Ok(())
    }

    fn child_namespaces(&self, parent: &Namespace) -> Result<Vec<Namespace>> {
        let dir = self.namespace_path(parent).join("ns");
        let mut children = dir_listing::subdirs(&dir, |name| {
            // A directory that can be no namespace (or is nested too deep) must not keep the others from being listed.
            let child = parent.child(name).ok();
            if child.is_none() {
                tracing::warn!(?dir, name, "ignoring directory that is no valid namespace");
            }
            child
        })?;
        children.sort();
        Ok(children)
    }

    /// Creates a namespace in an existing one.
    ///
    /// # Errors
    /// It exists already, or its parent does not.
    pub fn create_namespace(&self, namespace: &Namespace) -> Result<()> {
        let Some(parent) = namespace.parent() else {
            return Err(DatastoreError::NamespaceExists(namespace.clone()));
        };
        self.require_namespace(&parent)?;
        let path = self.namespace_path(namespace);
        if path.exists() {
            return Err(DatastoreError::NamespaceExists(namespace.clone()));
        }
        crate::ownership::create_dir_all(&path, 0o755)
            .map_err(DatastoreError::io("create namespace directory", &path))
    }

    /// Removes a namespace and those below it; their groups only when `with_groups` is set, and protected snapshots never.
    /// What cannot be removed stays, and so do the namespaces that hold it. The root itself always stays. If a retention lock
    /// keeps a snapshot that would be removed, nothing is.
    ///
    /// # Errors
    /// The namespace does not exist, a snapshot is locked, a group is in use, or the disk fails.
    pub fn remove_namespace(
        &self,
        namespace: &Namespace,
        with_groups: bool,
    ) -> Result<NamespaceRemoval> {
        let mut removal = NamespaceRemoval {
            complete: true,
            stats: DeleteStats::default(),
        };
        let namespaces = self.namespaces(namespace, None)?;
        for namespace in namespaces.iter().filter(|_| with_groups) {
            refuse(self.retention_lock().any_locked_in(namespace)?)?;
        }
        for namespace in namespaces.into_iter().rev() {
            if with_groups {
                for group in self.groups(&namespace)? {
                    let removed = self.remove_group(&namespace, &group)?;
                    removal.stats.removed_groups += removed.removed_groups;
                    removal.stats.removed_snapshots += removed.removed_snapshots;
                    removal.stats.protected_snapshots += removed.protected_snapshots;
                }
            }
            if !self.remove_empty_namespace(&namespace)? {
                removal.complete = false;
            }
        }
        Ok(removal)
    }

    /// Whether the namespace was empty and is gone.
    pub(crate) fn remove_empty_namespace(&self, namespace: &Namespace) -> Result<bool> {
        let path = self.namespace_path(namespace);
        for inner in ["vm", "ct", "host", "ns"] {
            dir_listing::remove_if_empty(&path.join(inner))?;
        }
        if namespace.is_root() {
            return Ok(
                self.groups(namespace)?.is_empty() && self.child_namespaces(namespace)?.is_empty()
            );
        }
        dir_listing::remove_if_empty(&path)
    }
}

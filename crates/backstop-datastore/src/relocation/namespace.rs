//! Moving whole namespaces, group by group.

use std::collections::BTreeSet;

use backstop_types::{BackupGroup, Namespace};

use super::MoveRefusal;
use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::task_log::TaskLog;

/// How a namespace is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceMove {
    /// Levels of namespaces below that move with it; unset: all.
    pub max_depth: Option<usize>,
    /// Whether namespaces that are empty afterwards are removed.
    pub delete_source: bool,
    /// Whether groups of the same name are merged.
    pub merge_groups: bool,
}

impl Datastore {
    /// Whether a namespace could be moved; takes no locks, so that the answer can be wrong when the move begins.
    ///
    /// # Errors
    /// [`MoveRefusal`].
    pub fn check_namespace_move(&self, from: &Namespace, to: &Namespace) -> Result<()> {
        if from.is_root() {
            return Err(MoveRefusal::RootNamespace.into());
        }
        if from == to {
            return Err(MoveRefusal::SameNamespace.into());
        }
        if !self.namespace_exists(from) {
            return Err(MoveRefusal::NoSource(from.clone()).into());
        }
        if let Some(parent) = to.parent()
            && !self.namespace_exists(&parent)
        {
            return Err(MoveRefusal::NoTargetParent(parent).into());
        }
        if from.contains(to) {
            let (from, to) = (from.clone(), to.clone());
            return Err(MoveRefusal::OwnSubtree { from, to }.into());
        }
        Ok(())
    }

    /// Moves what is in a namespace, and in those below it, to another one, which is created in its parent when it does not
    /// exist. A group that cannot be moved stays; one that is in use is tried a second time at the end.
    ///
    /// # Errors
    /// [`MoveRefusal`], of which [`MoveRefusal::Partial`] names what stayed; the disk fails; the task was stopped.
    pub fn move_namespace(
        &self,
        from: &Namespace,
        to: &Namespace,
        options: NamespaceMove,
        log: &dyn TaskLog,
    ) -> Result<()> {
        self.check_present()?;
        self.check_namespace_move(from, to)?;
        let sources = self.namespaces(from, options.max_depth)?;
        let pairs = targets(&sources, from, to)?;
        log.info(&format!(
            "moving namespace '{from}' -> '{to}': {} namespace(s)",
            pairs.len()
        ));
        // Parents come before their children.
        for (_, target) in &pairs {
            if !self.namespace_exists(target) {
                self.create_namespace(target)?;
            }
        }
        let mut run = Run {
            datastore: self,
            options,
            log,
            moved: 0,
            failed: BTreeSet::new(),
            busy: BTreeSet::new(),
        };
        for (source, target) in &pairs {
            for group in self.groups(source)? {
                run.group(source, &group, target, false)?;
            }
        }
        if !run.busy.is_empty() {
            log.info(&format!("retrying {} deferred group(s)...", run.busy.len()));
            for (source, group) in std::mem::take(&mut run.busy) {
                if let Some((_, target)) = pairs.iter().find(|(known, _)| *known == source) {
                    run.group(&source, &group, target, true)?;
                }
            }
        }
        if options.delete_source {
            run.remove_sources(&pairs)?;
        }
        if run.failed.is_empty() && run.busy.is_empty() {
            return Ok(());
        }
        Err(MoveRefusal::Partial {
            failed: run.failed.into_iter().collect(),
            busy: run.busy.into_iter().collect(),
        }
        .into())
    }
}

/// Each namespace with the one that its content moves to.
fn targets(
    sources: &[Namespace],
    from: &Namespace,
    to: &Namespace,
) -> Result<Vec<(Namespace, Namespace)>> {
    let too_deep = || {
        let deepest = sources.iter().map(Namespace::depth).max().unwrap_or(0);
        MoveRefusal::TooDeep {
            below: deepest.saturating_sub(from.depth()),
            target: to.depth(),
        }
    };
    sources
        .iter()
        .map(|source| match source.rebase(from, to) {
            Some(Ok(target)) => Ok((source.clone(), target)),
            _ => Err(too_deep().into()),
        })
        .collect()
}

struct Run<'a> {
    datastore: &'a Datastore,
    options: NamespaceMove,
    log: &'a dyn TaskLog,
    moved: usize,
    failed: BTreeSet<(Namespace, BackupGroup)>,
    busy: BTreeSet<(Namespace, BackupGroup)>,
}

impl Run<'_> {
    /// Fails only when the whole run must end.
    fn group(
        &mut self,
        source: &Namespace,
        group: &BackupGroup,
        target: &Namespace,
        again: bool,
    ) -> Result<()> {
        if self.log.is_aborted() {
            return Err(DatastoreError::Aborted);
        }
        let retry = if again { " on retry" } else { "" };
        let key = (source.clone(), group.clone());
        let occupied = (target.clone(), group.clone());
        if self.busy.contains(&occupied) || self.failed.contains(&occupied) {
            // Its place is that of a group that was to move on.
            self.log.warn(&format!(
                "failed to move group '{group}' in '{source}'{retry}: the group of that name in '{target}' was not moved"
            ));
            self.failed.insert(key);
            return Ok(());
        }
        let merge = self.options.merge_groups;
        match self
            .datastore
            .move_group(source, group, target, merge, self.log)
        {
            Ok(()) => {
                self.moved += 1;
                self.log.info(&format!(
                    "moved group {} ('{group}' in '{source}'){retry}",
                    self.moved
                ));
            }
            Err(DatastoreError::Aborted) => return Err(DatastoreError::Aborted),
            Err(error @ DatastoreError::Locked { .. }) if again => {
                self.log.warn(&format!(
                    "still locked after retry: group '{group}' in '{source}': {error}"
                ));
                self.busy.insert(key);
            }
            Err(error @ DatastoreError::Locked { .. }) => {
                self.log.info(&format!(
                    "deferring group '{group}' in '{source}' - lock conflict, will retry: {error}"
                ));
                self.busy.insert(key);
            }
            Err(error) => {
                self.log.warn(&format!(
                    "failed to move group '{group}' in '{source}'{retry}: {error}"
                ));
                self.failed.insert(key);
            }
        }
        Ok(())
    }

    /// Removes what is empty now, children before their parents.
    fn remove_sources(&self, pairs: &[(Namespace, Namespace)]) -> Result<()> {
        for (source, _) in pairs.iter().rev() {
            // A namespace that moves into its own ancestor can be a target too.
            if pairs.iter().any(|(_, target)| source.contains(target)) {
                continue;
            }
            let stays = self.failed.iter().chain(&self.busy);
            if stays
                .into_iter()
                .any(|(namespace, _)| source.contains(namespace))
            {
                self.log.warn(&format!(
                    "skipping source namespace '{source}' cleanup: contains group(s) that failed to move"
                ));
                continue;
            }
            let deeper_stay = self
                .datastore
                .namespaces(source, None)?
                .iter()
                .any(|child| !pairs.iter().any(|(known, _)| known == child));
            match self.datastore.remove_empty_namespace(source) {
                Ok(true) => {}
                Ok(false) if deeper_stay && self.options.max_depth.is_some() => {}
                Ok(false) => self.log.warn(&format!(
                    "source namespace '{source}' was not fully removed (non-empty after move)"
                )),
                Err(error) => self.log.warn(&format!(
                    "failed to remove source namespace '{source}': {error}"
                )),
            }
        }
        Ok(())
    }
}

/// What to say about groups that stayed.
pub(super) fn partial(
    failed: &[(Namespace, BackupGroup)],
    busy: &[(Namespace, BackupGroup)],
) -> String {
    let names = |groups: &[(Namespace, BackupGroup)]| {
        let names: Vec<String> = groups
            .iter()
            .map(|(namespace, group)| format!("'{group}' in '{namespace}'"))
            .collect();
        names.join(", ")
    };
    let mut text = format!(
        "namespace move partially completed; {} group(s) could not be moved and remain at source",
        failed.len() + busy.len()
    );
    if !failed.is_empty() {
        text.push_str(&format!(
            "; {} with a fatal error (investigate before retrying): {}",
            failed.len(),
            names(failed)
        ));
    }
    if !busy.is_empty() {
        text.push_str(&format!(
            "; {} still lock-conflicted (rerun move-namespace or move-group may succeed): {}",
            busy.len(),
            names(busy)
        ));
    }
    text
}

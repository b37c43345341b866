//! The tree of access rules (`acl.cfg`): reading, writing, changing, evaluating. Pure: knows
//! neither files nor whether a user is enabled. Format: `docs/formats/configuration.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::auth_id::AuthId;
use crate::name::is_safe_id;
use crate::privilege::{Privileges, Role};

/// Why the text of a rule file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse acl config \"{path}\", line {line} - {reason}")]
pub struct AclParseError {
    /// The file as given by the caller.
    pub path: String,
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Whom a rule names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Auth(AuthId),
    /// Groups are read and written back, but match nobody.
    Group(String),
}

impl Subject {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix('@') {
            Some(group) if !group.is_empty() && !group.contains(char::is_whitespace) => {
                Ok(Self::Group(group.to_string()))
            }
            Some(_) => Err("invalid group id".to_string()),
            None => text
                .parse()
                .map(Self::Auth)
                .map_err(|error| error.to_string()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Auth(id) => id.to_string(),
            Self::Group(group) => format!("@{group}"),
        }
    }
}

/// Roles of one subject at one path, each with its propagate flag.
type Roles = BTreeMap<Role, bool>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    subjects: BTreeMap<Subject, Roles>,
    children: BTreeMap<String, Node>,
}

impl Node {
    fn insert(&mut self, subject: Subject, role: Role, propagate: bool) {
        let roles = self.subjects.entry(subject).or_default();
        if role == Role::NoAccess {
            roles.clear();
        } else {
            roles.remove(&Role::NoAccess);
        }
        roles.insert(role, propagate);
    }

    fn remove_auth_id(&mut self, auth_id: &AuthId) {
        self.subjects.remove(&Subject::Auth(auth_id.clone()));
        for child in self.children.values_mut() {
            child.remove_auth_id(auth_id);
        }
    }

    /// Whether the node says anything; empty nodes are not shown or written.
    fn is_bare(&self) -> bool {
        self.subjects.values().all(BTreeMap::is_empty)
    }
}

/// One rule as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclEntry {
    /// The path it holds for.
    pub path: String,
    /// The authentication id, or the name of a group without `@`.
    pub subject: String,
    /// Whether `subject` is a group.
    pub is_group: bool,
    /// Whether it holds below the path, too.
    pub propagate: bool,
    /// What it grants.
    pub role: Role,
}

/// What somebody may do at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    /// Held at the path itself.
    pub privileges: Privileges,
    /// Those of them that hold below the path, too.
    pub propagated: Privileges,
}

/// All access rules of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AclTree {
    root: Node,
}

/// Most components of a path in a file; paths that can be set have 128 characters at most.
const MAX_COMPONENTS: usize = 64;

/// The non-empty components of a path.
fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|component| !component.is_empty())
}

impl AclTree {
    /// Reads the text of a rule file; `path` is only named in errors.
    ///
    /// # Errors
    /// The first line that breaks the format.
    pub fn parse(path: &str, text: &str) -> Result<Self, AclParseError> {
        let mut tree = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            tree.parse_line(line).map_err(|reason| AclParseError {
                path: path.to_string(),
                line: index + 1,
                reason,
            })?;
        }
        Ok(tree)
    }

    fn parse_line(&mut self, line: &str) -> Result<(), String> {
        let fields: Vec<&str> = line.split(':').collect();
        let [keyword, propagate, path, subjects, roles] = fields.as_slice() else {
            return Err("wrong number of items.".to_string());
        };
        if *keyword != "acl" {
            return Err("line does not start with 'acl'.".to_string());
        }
        let propagate = match *propagate {
            "0" => false,
            "1" => true,
            _ => return Err("expected '0' or '1' for propagate flag.".to_string()),
        };
        let subjects = subjects
            .split(',')
            .map(|text| Subject::parse(text.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        let roles = roles
            .split(',')
            .map(|text| text.trim().parse::<Role>().map_err(|error| error.reason))
            .collect::<Result<Vec<_>, _>>()?;
        if components(path).count() > MAX_COMPONENTS {
            return Err(format!("path has more than {MAX_COMPONENTS} components."));
        }
        let node = self.node_mut(path);
        for subject in subjects {
            for role in &roles {
                node.insert(subject.clone(), *role, propagate);
            }
        }
        Ok(())
    }

    /// The canonical text of the file. Rules of `root@pam` are left out: they change nothing.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        write_node(&self.root, "", &mut out);
        out
    }

    fn node_mut(&mut self, path: &str) -> &mut Node {
        components(path).fold(&mut self.root, |node, component| {
            node.children.entry(component.to_string()).or_default()
        })
    }

    fn node(&self, path: &str) -> Option<&Node> {
        components(path).try_fold(&self.root, |node, component| node.children.get(component))
    }

    /// Grants `role` to `auth_id` at `path`, replacing the same role's propagate flag. `NoAccess`
    /// replaces every other role there; any other role replaces `NoAccess`.
    pub fn insert(&mut self, path: &str, auth_id: &AuthId, role: Role, propagate: bool) {
        self.node_mut(path)
            .insert(Subject::Auth(auth_id.clone()), role, propagate);
    }

    /// Takes `role` away from `auth_id` at `path`; no rule, no change.
    pub fn remove(&mut self, path: &str, auth_id: &AuthId, role: Role) {
        let subject = Subject::Auth(auth_id.clone());
        let node = components(path).try_fold(&mut self.root, |node, component| {
            node.children.get_mut(component)
        });
        if let Some(roles) = node.and_then(|node| node.subjects.get_mut(&subject)) {
            roles.remove(&role);
        }
    }

    /// Takes every role away from `auth_id`, everywhere.
    pub fn remove_auth_id(&mut self, auth_id: &AuthId) {
        self.root.remove_auth_id(auth_id);
    }

    /// Removes all rules at `path` and below it.
    pub fn remove_path(&mut self, path: &str) {
        let parts: Vec<&str> = components(path).collect();
        let Some((last, parents)) = parts.split_last() else {
            self.root = Node::default();
            return;
        };
        let parent = parents.iter().try_fold(&mut self.root, |node, component| {
            node.children.get_mut(*component)
        });
        if let Some(parent) = parent {
            parent.children.remove(*last);
        }
    }

    /// All rules, by path, then subject. With `exact`, only those at `path` itself; otherwise
    /// those at and below it.
    #[must_use]
    pub fn entries(&self, path: Option<&str>, exact: bool) -> Vec<AclEntry> {
        let path = path.unwrap_or("/");
        let mut out = Vec::new();
        if let Some(node) = self.node(path) {
            let prefix = components(path).fold(String::new(), |mut prefix, component| {
                prefix.push('/');
                prefix.push_str(component);
                prefix
            });
            list_node(node, &prefix, exact, &mut out);
        }
        out
    }

    /// Every path that has a node in the tree, `/` included.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        fn walk(node: &Node, path: &str, out: &mut Vec<String>) {
            out.push(if path.is_empty() {
                "/".to_string()
            } else {
                path.to_string()
            });
            for (name, child) in &node.children {
                walk(child, &format!("{path}/{name}"), out);
            }
        }
        let mut out = Vec::new();
        walk(&self.root, "", &mut out);
        out
    }

    /// The roles of `auth_id` at `path`, each with whether it holds below, too. The deepest node
    /// with an applicable role replaces everything above it.
    #[must_use]
    pub fn roles(&self, auth_id: &AuthId, path: &str) -> BTreeMap<Role, bool> {
        let subject = Subject::Auth(auth_id.clone());
        let mut rest = components(path).peekable();
        let mut node = &self.root;
        let mut found = BTreeMap::new();
        loop {
            let is_target = rest.peek().is_none();
            if let Some(roles) = node.subjects.get(&subject) {
                let mut own: BTreeMap<Role, bool> = roles
                    .iter()
                    .filter(|(_, propagate)| is_target || **propagate)
                    .map(|(role, propagate)| (*role, *propagate))
                    .collect();
                if let Some(propagate) = own.get(&Role::NoAccess).copied() {
                    own = BTreeMap::from([(Role::NoAccess, propagate)]);
                }
                if !own.is_empty() {
                    found = own;
                }
            }
            match rest
                .next()
                .and_then(|component| node.children.get(component))
            {
                Some(child) => node = child,
                None => return found,
            }
        }
    }

    /// What `auth_id` may do at `path`. `root@pam` may do everything; a token never more than
    /// its user.
    #[must_use]
    pub fn permissions(&self, auth_id: &AuthId, path: &str) -> Permissions {
        if auth_id.is_root() {
            return Permissions {
                privileges: Privileges::ALL,
                propagated: Privileges::ALL,
            };
        }
        let mut permissions = Permissions::default();
        for (role, propagate) in self.roles(auth_id, path) {
            permissions.privileges |= role.privileges();
            if propagate {
                permissions.propagated |= role.privileges();
            }
        }
        if auth_id.is_token() {
            let user = self.permissions(&auth_id.user().clone().into(), path);
            permissions.privileges &= user.privileges;
            permissions.propagated &= user.propagated;
        }
        permissions
    }

    /// Whether `auth_id` holds one of `privileges` at `path` or anywhere below it.
    #[must_use]
    pub fn any_below(&self, auth_id: &AuthId, path: &str, privileges: Privileges) -> bool {
        if self
            .permissions(auth_id, path)
            .privileges
            .intersects(privileges)
        {
            return true;
        }
        let Some(node) = self.node(path) else {
            return false;
        };
        node.children
            .keys()
            .any(|name| self.any_below(auth_id, &format!("{path}/{name}"), privileges))
    }
}

fn write_node(node: &Node, path: &str, out: &mut String) {
    let shown = if path.is_empty() { "/" } else { path };
    for propagate in [false, true] {
        let mut subjects_of: BTreeMap<Role, BTreeSet<String>> = BTreeMap::new();
        for (subject, roles) in &node.subjects {
            if matches!(subject, Subject::Auth(id) if id.is_root()) {
                continue;
            }
            for (role, _) in roles.iter().filter(|(_, own)| **own == propagate) {
                subjects_of.entry(*role).or_default().insert(subject.text());
            }
        }
        let mut lines: BTreeMap<String, Vec<Role>> = BTreeMap::new();
        for (role, subjects) in subjects_of {
            let subjects = subjects.into_iter().collect::<Vec<_>>().join(",");
            lines.entry(subjects).or_default().push(role);
        }
        for (subjects, roles) in lines {
            let roles = if roles.contains(&Role::NoAccess) {
                vec![Role::NoAccess]
            } else {
                roles
            };
            let roles: Vec<&str> = roles.into_iter().map(Role::as_str).collect();
            let flag = u8::from(propagate);
            out.push_str(&format!(
                "acl:{flag}:{shown}:{subjects}:{}\n",
                roles.join(",")
            ));
        }
    }
    for (name, child) in &node.children {
        write_node(child, &format!("{path}/{name}"), out);
    }
}

fn list_node(node: &Node, path: &str, exact: bool, out: &mut Vec<AclEntry>) {
    if !node.is_bare() {
        for (subject, roles) in &node.subjects {
            let (text, is_group) = match subject {
                Subject::Auth(id) => (id.to_string(), false),
                Subject::Group(group) => (group.clone(), true),
            };
            out.extend(roles.iter().map(|(role, propagate)| AclEntry {
                path: if path.is_empty() {
                    "/".to_string()
                } else {
                    path.to_string()
                },
                subject: text.clone(),
                is_group,
                propagate: *propagate,
                role: *role,
            }));
        }
    }
    if !exact {
        for (name, child) in &node.children {
            list_node(child, &format!("{path}/{name}"), exact, out);
        }
    }
}

/// A path for which no rule can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid acl path '{path}'.")]
pub struct AclPathError {
    /// The refused path.
    pub path: String,
}

/// Checks that rules can be made for `path`.
///
/// # Errors
/// When it is none of the paths that permission checks use.
pub fn check_acl_path(path: &str) -> Result<(), AclPathError> {
    let parts: Vec<&str> = components(path).collect();
    let max_namespace = crate::Namespace::MAX_DEPTH;
    let fits = match parts.as_slice() {
        [] => true,
        ["access", rest @ ..] => {
            matches!(
                rest,
                [] | ["acl" | "users" | "domains"] | ["openid"] | ["openid", _]
            )
        }
        ["datastore", rest @ ..] => rest.len() <= 1 + max_namespace,
        ["remote", rest @ ..] => rest.len() <= 2 + max_namespace,
        ["system", rest @ ..] => matches!(
            rest,
            [] | ["certificates" | "disks" | "log" | "notifications" | "status" | "tasks" | "time"]
                // ours: who may scrape metrics
                | ["metrics"]
                | ["services" | "s3-endpoint" | "encryption-keys"]
                | ["services" | "s3-endpoint" | "encryption-keys", _]
                | ["network"]
                | ["network", "dns" | "interfaces"]
                | ["network", "interfaces", _]
        ),
        ["tape", rest @ ..] => {
            matches!(
                rest,
                [] | ["device" | "pool" | "job"] | ["device" | "pool" | "job", _]
            )
        }
        _ => false,
    };
    if fits && path.starts_with('/') {
        Ok(())
    } else {
        Err(AclPathError {
            path: path.to_string(),
        })
    }
}

/// Whether `path` has the form of a rule's path: `/`, or safe ids each after a `/`.
#[must_use]
pub fn is_acl_path(path: &str) -> bool {
    path == "/"
        || path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(is_safe_id))
}

#[cfg(test)]
mod tests;

//! Backup namespaces: names below a datastore, at most 7 deep.
//! Format: `docs/formats/datastore.md`.

use std::cmp::Ordering;
use std::str::FromStr;

use crate::name::{NameError, is_safe_id, text_impls};

/// A namespace such as `a/b`; the root is the empty text.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Namespace(String);

impl Namespace {
    /// Deepest allowed level; the root has depth 0.
    pub const MAX_DEPTH: usize = 7;
    /// Longest text form, in bytes.
    pub const MAX_LENGTH: usize = 256;

    /// The root namespace.
    #[must_use]
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Builds a namespace from its components, outermost first.
    ///
    /// # Errors
    /// When a component is not a safe id, or when the result is too deep or too long.
    pub fn from_components<'a>(
        components: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, NameError> {
        components
            .into_iter()
            .try_fold(Self::root(), |parent, component| parent.child(component))
    }

    /// The text form, empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of components.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// The innermost component; `None` for the root.
    #[must_use]
    pub fn last(&self) -> Option<&str> {
        self.components().next_back()
    }

    /// The namespace one level up; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.rsplit_once('/') {
            Some((parent, _)) => Self(parent.to_string()),
            None => Self::root(),
        })
    }

    /// The namespace `component` below this one.
    ///
    /// # Errors
    /// When `component` is not a safe id, or when the result is too deep or too long.
    pub fn child(&self, component: &str) -> Result<Self, NameError> {
        let error = |reason: String| NameError::new("namespace component", component, reason);
        if !is_safe_id(component) {
            return Err(error("value does not match the regex pattern".to_string()));
        }
        if self.depth() >= Self::MAX_DEPTH {
            return Err(error(format!(
                "namespace '{self}' has the maximum depth of {} already",
                Self::MAX_DEPTH
            )));
        }
        if self.0.len() + component.len() + 1 > Self::MAX_LENGTH {
            return Err(error(format!(
                "namespace would be longer than {} characters",
                Self::MAX_LENGTH
            )));
        }
        Ok(Self(if self.is_root() {
            component.to_string()
        } else {
            format!("{}/{component}", self.0)
        }))
    }

    /// Whether `other` is this namespace or lies below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.is_root()
            || other
                .0
                .strip_prefix(self.0.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Replaces the leading `from` by `to`; `None` when this namespace does not lie in `from`.
    ///
    /// # Errors
    /// When the result is too deep or too long.
    pub fn rebase(&self, from: &Self, to: &Self) -> Option<Result<Self, NameError>> {
        if !from.contains(self) {
            return None;
        }
        let mut rest = self.components().skip(from.depth());
        Some(rest.try_fold(to.clone(), |parent, component| parent.child(component)))
    }

    /// The path of its directory relative to the datastore: `ns/a/ns/b`, empty for the root.
    #[must_use]
    pub fn to_path(&self) -> String {
        let mut path = String::new();
        for component in self.components() {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str("ns/");
            path.push_str(component);
        }
        path
    }

    /// The components of the access-control path below `/datastore/<store>`.
    #[must_use]
    pub fn acl_path(&self, store: &crate::DatastoreName) -> String {
        if self.is_root() {
            format!("/datastore/{store}")
        } else {
            format!("/datastore/{store}/{self}")
        }
    }
}

impl FromStr for Namespace {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::root());
        }
        Self::from_components(text.split('/'))
            .map_err(|error| NameError::new("namespace", text, error.reason))
    }
}

impl Ord for Namespace {
    /// Parents sort directly before their children.
    fn cmp(&self, other: &Self) -> Ordering {
        self.components().cmp(other.components())
    }
}

impl PartialOrd for Namespace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

text_impls!(Namespace);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_namespace_maps_to_its_directory() {
        let ns: Namespace = "a/b/c".parse().unwrap();
        assert_eq!(ns.to_path(), "ns/a/ns/b/ns/c");
        assert_eq!(Namespace::root().to_path(), "");
        assert_eq!(ns.parent().unwrap().to_string(), "a/b");
        assert_eq!(ns.depth(), 3);
        assert!(Namespace::root().parent().is_none());
    }

    #[test]
    fn depth_and_length_are_bounded() {
        assert!("a/b/c/d/e/f/g".parse::<Namespace>().is_ok());
        assert!("a/b/c/d/e/f/g/h".parse::<Namespace>().is_err());
        assert!("a".repeat(255).parse::<Namespace>().is_ok());
        assert!("a".repeat(256).parse::<Namespace>().is_err());
        let long = "a".repeat(127);
        assert!(
            format!("{long}/{}", "b".repeat(128))
                .parse::<Namespace>()
                .is_ok()
        );
        assert!(
            format!("{long}/{}", "b".repeat(129))
                .parse::<Namespace>()
                .is_err()
        );
    }

    #[test]
    fn odd_slashes_and_dots_are_refused() {
        for text in ["/", "a/", "/a", "a//b", "..", "a/../b", ".", "a b", "ä"] {
            assert!(text.parse::<Namespace>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_prefix_is_not_a_parent() {
        let a: Namespace = "a".parse().unwrap();
        assert!(a.contains(&"a/b".parse().unwrap()));
        assert!(!a.contains(&"ab".parse().unwrap()));
        assert!(
            a.rebase(&"b".parse().unwrap(), &Namespace::root())
                .is_none()
        );
    }

    fn namespace() -> impl Strategy<Value = Namespace> {
        proptest::collection::vec("[A-Za-z0-9_][A-Za-z0-9._-]{0,8}", 0..=7)
            .prop_map(|parts| Namespace::from_components(parts.iter().map(String::as_str)).unwrap())
    }

    proptest! {
        #[test]
        fn a_namespace_survives_its_text(ns in namespace()) {
            prop_assert_eq!(ns.to_string().parse::<Namespace>().unwrap(), ns.clone());
            let json = serde_json::to_string(&ns).unwrap();
            prop_assert_eq!(serde_json::from_str::<Namespace>(&json).unwrap(), ns);
        }

        #[test]
        fn rebasing_there_and_back_gives_the_same(ns in namespace(), base in namespace()) {
            if let Some(Ok(moved)) = ns.rebase(&Namespace::root(), &base) {
                prop_assert!(base.contains(&moved));
                prop_assert_eq!(moved.rebase(&base, &Namespace::root()).unwrap().unwrap(), ns);
            }
        }

        #[test]
        fn parents_sort_before_children(ns in namespace()) {
            if let Some(parent) = ns.parent() {
                prop_assert!(parent < ns);
                prop_assert!(parent.contains(&ns));
            }
        }
    }
}

//! Which namespace of the source goes where. Pure.

use backstop_types::Namespace;

/// From the anchor at the source to the anchor at the target.
#[derive(Debug, Clone)]
pub(super) struct Mapping {
    /// The anchor at the source.
    pub source: Namespace,
    /// The anchor at the target.
    pub target: Namespace,
}

impl Mapping {
    /// Where a namespace of the source goes.
    ///
    /// # Errors
    /// It lies outside the anchor, or its new name would be too deep or too long.
    pub fn map(&self, namespace: &Namespace) -> Result<Namespace, String> {
        match namespace.rebase(&self.source, &self.target) {
            Some(Ok(mapped)) => Ok(mapped),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(format!(
                "namespace '{namespace}' is not in '{}'",
                self.source
            )),
        }
    }

    /// Fails when something of the source would lie too deep at the target.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_depth(&self, namespaces: &[Namespace]) -> Result<(), String> {
        let depths = namespaces.iter().map(Namespace::depth);
        let deepest = depths.max().unwrap_or(0);
        let below = deepest.saturating_sub(self.source.depth());
        let (target, limit) = (self.target.depth(), Namespace::MAX_DEPTH);
        if below + target <= limit {
            return Ok(());
        }
        Err(format!(
            "namespace depth limit exceeded: source subtree depth ({below}) + target depth ({target}) would exceed max ({limit})"
        ))
    }
}

/// Brings parents before their children.
pub(super) fn sort(namespaces: &mut [Namespace]) {
    namespaces.sort_by(|a, b| (a.as_str().len(), a).cmp(&(b.as_str().len(), b)));
}

/// How a namespace is called in the log.
pub(super) fn named(namespace: &Namespace) -> String {
    match namespace.is_root() {
        true => "root namespace".to_owned(),
        false => format!("namespace '{namespace}'"),
    }
}

/// Whether recursion below an anchor is within the limit of namespaces.
///
/// # Errors
/// How deep it would be.
pub(crate) fn check_max_depth(anchor: &Namespace, max_depth: usize) -> Result<(), String> {
    let (depth, limit) = (anchor.depth(), Namespace::MAX_DEPTH);
    if depth + max_depth <= limit {
        return Ok(());
    }
    Err(format!(
        "namespace '{anchor}'s depth and recursion depth exceed limit: {depth} + {max_depth} > {limit}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn list(texts: &[&str]) -> Vec<Namespace> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_anchor_is_replaced_and_the_rest_stays() {
        let mapping = Mapping {
            source: "location_a/department_x".parse().unwrap(),
            target: "location_a_dep_x".parse().unwrap(),
        };
        for (source, target) in [
            ("location_a/department_x", "location_a_dep_x"),
            (
                "location_a/department_x/team_one",
                "location_a_dep_x/team_one",
            ),
        ] {
            let mapped = mapping.map(&source.parse().unwrap()).unwrap();
            assert_eq!(mapped.as_str(), target);
        }
        assert!(mapping.map(&"location_a".parse().unwrap()).is_err());
        assert!(
            mapping
                .map(&"location_a/department_xy".parse().unwrap())
                .is_err()
        );
    }

    #[test]
    fn what_would_lie_too_deep_is_refused_before_anything_is_copied() {
        let mapping = Mapping {
            source: "a".parse().unwrap(),
            target: "x/y/z".parse().unwrap(),
        };
        let fits = list(&["a", "a/b/c/d/e"]);
        assert_eq!(mapping.check_depth(&fits), Ok(()));
        let error = mapping.check_depth(&list(&["a/b/c/d/e/f"])).unwrap_err();
        assert!(error.contains("depth (5) + target depth (3)"), "{error}");
        assert_eq!(check_max_depth(&"a/b".parse().unwrap(), 5), Ok(()));
        assert_eq!(
            check_max_depth(&"a/b".parse().unwrap(), 6).unwrap_err(),
            "namespace 'a/b's depth and recursion depth exceed limit: 2 + 6 > 7"
        );
    }

    #[test]
    fn parents_come_before_their_children() {
        let mut namespaces = list(&["b/a", "", "longer", "b", "b/a/c", "longer/x"]);
        sort(&mut namespaces);
        let texts: Vec<&str> = namespaces.iter().map(Namespace::as_str).collect();
        assert_eq!(texts, ["", "b", "b/a", "b/a/c", "longer", "longer/x"]);
    }
}

//! All endpoints, found by path.

use std::collections::BTreeMap;

use super::endpoint::{Endpoint, Method};

/// A declaration that contradicts another one. It is found when the server starts, and by the tests.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// Two endpoints with one method and path.
    #[error("two endpoints for {0:?} {1}")]
    Twice(Method, &'static str),
    /// One place of a path has two parameter names.
    #[error("{0} names the parameter {{{1}}}, another endpoint calls it {{{2}}}")]
    Ambiguous(&'static str, &'static str, &'static str),
    /// The path has a parameter that the table does not know.
    #[error("{0} has no parameter {1} in its table")]
    Unknown(&'static str, &'static str),
}

#[derive(Debug, Default)]
struct Node {
    endpoints: BTreeMap<Method, Endpoint>,
    children: BTreeMap<&'static str, Node>,
    parameter: Option<(&'static str, Box<Node>)>,
}

/// The tree of all paths.
#[derive(Debug, Default)]
pub struct Tree {
    root: Node,
}

/// What a path leads to.
#[derive(Debug)]
pub struct Found<'a> {
    /// The endpoint, unless the path is a plain directory or does not know the method.
    pub endpoint: Option<&'a Endpoint>,
    /// Names of what lies below, when the path is a directory without an endpoint of its own for GET.
    pub index: Option<Vec<&'static str>>,
    /// Parameters of the path.
    pub params: Vec<(&'static str, String)>,
}

impl Tree {
    /// Puts the endpoints into a tree.
    ///
    /// # Errors
    /// Declarations that contradict each other.
    pub fn new(endpoints: Vec<Endpoint>) -> Result<Self, TreeError> {
        let mut tree = Self::default();
        for endpoint in endpoints {
            tree.insert(endpoint)?;
        }
        Ok(tree)
    }

    fn insert(&mut self, endpoint: Endpoint) -> Result<(), TreeError> {
        let path = endpoint.path;
        let mut node = &mut self.root;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            node = match part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'))
            {
                None => node.children.entry(part).or_default(),
                Some(name) => {
                    if !endpoint.params.iter().any(|param| param.name == name) {
                        return Err(TreeError::Unknown(path, name));
                    }
                    let (known, child) =
                        node.parameter.get_or_insert_with(|| (name, Box::default()));
                    if *known != name {
                        return Err(TreeError::Ambiguous(path, name, known));
                    }
                    child
                }
            };
        }
        let method = endpoint.method;
        match node.endpoints.insert(method, endpoint) {
            None => Ok(()),
            Some(_) => Err(TreeError::Twice(method, path)),
        }
    }

    /// Follows a path. `None` when nothing is there.
    pub fn find(&self, method: Option<Method>, path: &[String]) -> Option<Found<'_>> {
        let mut node = &self.root;
        let mut params = Vec::new();
        for part in path {
            node = match (node.children.get(part.as_str()), &node.parameter) {
                (Some(child), _) => child,
                (None, Some((name, child))) => {
                    params.push((*name, part.clone()));
                    child
                }
                (None, None) => return None,
            };
        }
        let endpoint = method.and_then(|method| node.endpoints.get(&method));
        let is_directory = !node.children.is_empty() || node.parameter.is_some();
        let index = (endpoint.is_none() && method == Some(Method::Get) && is_directory)
            .then(|| node.children.keys().copied().collect());
        Some(Found {
            endpoint,
            index,
            params,
        })
    }

    /// Every endpoint, by path.
    pub fn endpoints(&self) -> Vec<&Endpoint> {
        let mut all = Vec::new();
        let mut open = vec![&self.root];
        while let Some(node) = open.pop() {
            all.extend(node.endpoints.values());
            open.extend(node.children.values());
            open.extend(node.parameter.as_ref().map(|(_, child)| &**child));
        }
        all.sort_by_key(|endpoint| (endpoint.path, endpoint.method));
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::http::Reply;
    use crate::router::{Handler, Permission};
    use backstop_types::schema::{ANY_TEXT, Property};

    const STORE: &[Property] = &[
        Property::required("store", &ANY_TEXT),
        Property::optional("x", &ANY_TEXT),
    ];

    fn endpoint(method: Method, path: &'static str) -> Endpoint {
        Endpoint {
            method,
            path,
            about: "",
            params: STORE,
            permission: Permission::World,
            handler: Handler::blocking(|_, _| Ok(Reply::null())),
        }
    }

    fn path(text: &str) -> Vec<String> {
        text.split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_path_leads_to_its_endpoint_or_to_a_list_of_what_is_below() {
        let tree = Tree::new(vec![
            endpoint(Method::Get, "/ping"),
            endpoint(Method::Get, "/admin/datastore"),
            endpoint(Method::Get, "/admin/datastore/{store}/status"),
            endpoint(Method::Delete, "/admin/datastore/{store}/groups"),
        ])
        .unwrap();
        let status = tree
            .find(Some(Method::Get), &path("admin/datastore/s1/status"))
            .unwrap();
        assert_eq!(
            status.endpoint.unwrap().path,
            "/admin/datastore/{store}/status"
        );
        assert_eq!(status.params, [("store", "s1".to_owned())]);
        let index = tree
            .find(Some(Method::Get), &path("admin/datastore/s1"))
            .unwrap();
        assert_eq!(index.index.unwrap(), ["groups", "status"]);
        assert!(
            tree.find(Some(Method::Get), &path("admin/datastore"))
                .unwrap()
                .index
                .is_none()
        );
        assert_eq!(
            tree.find(Some(Method::Get), &[]).unwrap().index.unwrap(),
            ["admin", "ping"]
        );
        assert!(
            tree.find(Some(Method::Post), &path("ping"))
                .unwrap()
                .endpoint
                .is_none()
        );
        assert!(tree.find(Some(Method::Get), &path("nope")).is_none());
        assert_eq!(tree.endpoints().len(), 4);
    }

    #[test]
    fn contradicting_declarations_are_found() {
        let twice = Tree::new(vec![
            endpoint(Method::Get, "/a"),
            endpoint(Method::Get, "/a/"),
        ]);
        assert_eq!(twice.unwrap_err(), TreeError::Twice(Method::Get, "/a/"));
        let names = Tree::new(vec![
            endpoint(Method::Get, "/a/{store}"),
            endpoint(Method::Put, "/a/{x}"),
        ]);
        assert_eq!(
            names.unwrap_err(),
            TreeError::Ambiguous("/a/{x}", "x", "store")
        );
        let unknown = Tree::new(vec![endpoint(Method::Get, "/a/{nope}")]);
        assert_eq!(
            unknown.unwrap_err(),
            TreeError::Unknown("/a/{nope}", "nope")
        );
    }
}

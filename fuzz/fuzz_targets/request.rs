//! Any path, query and body as a request to each endpoint that the path leads to: refused with a reason, or understood in the types
//! of the endpoint's table. Nobody who is not logged in, and nobody without rights, passes a gate that is not open to the world.
#![no_main]

use std::sync::LazyLock;

use backstop_server::http::path;
use backstop_server::router::{Method, Params, Permission, tree::Tree};
use backstop_types::{AuthId, Privileges};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

static TREE: LazyLock<Tree> = LazyLock::new(|| {
    Tree::new(backstop_server::api::endpoints()).expect("the endpoints fit together")
});
static SOMEBODY: LazyLock<AuthId> = LazyLock::new(|| "somebody@pbs".parse().expect("a user"));

fuzz_target!(|input: (&str, Option<&str>, u8, &[u8])| {
    let (target, query, kind, body) = input;
    let Ok(parts) = path::components(target, query) else {
        return;
    };
    assert!(parts.iter().all(|part| !part.is_empty() && !part.starts_with('.')));
    let mut headers = HeaderMap::new();
    let kind = match kind % 4 {
        0 => None,
        1 => Some("application/json"),
        2 => Some("application/x-www-form-urlencoded"),
        _ => Some("text/plain"),
    };
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    for method in [Method::Get, Method::Put, Method::Post, Method::Delete] {
        let Some(found) = TREE.find(Some(method), &parts) else {
            return;
        };
        let Some(endpoint) = found.endpoint else {
            continue;
        };
        let parameter = |name: &str| {
            let find = found.params.iter().find(|(known, _)| *known == name);
            find.map(|(_, value)| value.as_str())
        };
        let nothing = |_: &AuthId, _: &str| Privileges::NONE;
        let world = matches!(endpoint.permission, Permission::World);
        assert_eq!(endpoint.permission.allows(None, &parameter, &nothing), world);
        if endpoint.permission.allows(Some(&SOMEBODY), &parameter, &nothing) {
            let is_self = parameter("userid") == Some("somebody@pbs");
            assert!(world || is_self || matches!(endpoint.permission, Permission::Anybody));
        }
        let raw = endpoint.handler.takes_raw_body();
        let body = (!raw).then_some(body);
        if let Ok(params) = Params::of_request(endpoint.params, &found.params, query, &headers, body) {
            for name in params.as_map().keys() {
                assert!(endpoint.params.iter().any(|known| known.name == name), "{name}");
            }
            for known in endpoint.params.iter().filter(|known| !known.optional) {
                assert!(params.has(known.name), "{}", known.name);
            }
        }
    }
});

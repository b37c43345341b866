//! The rules for request paths: splitting, decoding, and what is refused.

use hyper::StatusCode;
use percent_encoding::percent_decode_str;

use super::error::ApiError;

/// Longest sum of path and query, in bytes.
const MAX_URI: usize = 3072;

/// Splits a path into its decoded components; empty ones are dropped.
///
/// # Errors
/// 414 when path and query are too long together, 400 for a component that begins with a dot or is not UTF-8.
pub fn components(path: &str, query: Option<&str>) -> Result<Vec<String>, ApiError> {
    if path.len() + query.map_or(0, str::len) > MAX_URI {
        return Err(ApiError::new(StatusCode::URI_TOO_LONG, ""));
    }
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let decoded = percent_decode_str(part).decode_utf8().map_err(|err| {
            ApiError::bad_request(format!("unable to decode path component - {err}"))
        })?;
        if part.starts_with('.') || decoded.starts_with('.') {
            return Err(ApiError::bad_request("path contains illegal components"));
        }
        if !decoded.is_empty() {
            parts.push(decoded.into_owned());
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn empty_components_are_dropped_and_a_slash_can_be_inside_one() {
        assert_eq!(
            components("//api2//json/ping/", None).unwrap(),
            ["api2", "json", "ping"]
        );
        assert_eq!(components("/a%2Fb", None).unwrap(), ["a/b"]);
    }

    #[test]
    fn a_component_that_begins_with_a_dot_is_refused_in_either_spelling() {
        for path in ["/../etc", "/.hidden", "/a/%2e%2E/b"] {
            let err = components(path, None).unwrap_err();
            assert_eq!(
                err,
                ApiError::bad_request("path contains illegal components"),
                "{path}"
            );
        }
    }

    #[test]
    fn a_long_uri_is_refused() {
        let path = format!("/{}", "a".repeat(3071));
        assert!(components(&path, None).is_ok());
        assert_eq!(
            components(&path, Some("x")).unwrap_err().status(),
            StatusCode::URI_TOO_LONG
        );
    }

    proptest::proptest! {
        #[test]
        fn no_path_makes_it_fail_otherwise(path in "\\PC*") {
            if let Ok(parts) = components(&path, None) {
                assert!(parts.iter().all(|part| !part.is_empty() && !part.starts_with('.')));
            }
        }
    }
}

//! What the server answers outside `/api2`: a page that says what this is.

use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response};

use crate::http::ApiError;
use crate::http::body::{self, Body};

const PAGE: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head><meta charset=\"utf-8\"><title>Backstop</title></head>
<body>
<h1>Backstop</h1>
<p>This is a Backstop backup server. It speaks the protocol of Proxmox Backup Server: point
<code>backstop client</code>, <code>proxmox-backup-client</code> or a Proxmox VE storage at this address.</p>
<p>The API is below <code>/api2/json</code>.</p>
</body>
</html>
";

/// Answers a request for a page or file.
///
/// # Errors
/// 404 for what is not there, 400 for methods other than GET.
pub fn serve(method: &Method, path: &[String]) -> Result<Response<Body>, ApiError> {
    if *method != Method::GET {
        return Err(ApiError::bad_request("invalid http method for path"));
    }
    if !path.is_empty() {
        return Err(ApiError::not_found(format!(
            "no such file: '{}'",
            path.join("/")
        )));
    }
    let mut response = Response::new(body::full(PAGE));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response.headers_mut().insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    Ok(response)
}

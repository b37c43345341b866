//! The error of a REST call: a status code and the text that the caller gets to see.

use std::fmt;
use std::time::Duration;

use backstop_types::schema::ParameterErrors;
use hyper::StatusCode;

/// Why a call failed. Every `std::error::Error` converts into one with status 400, its causes joined by `: `.
///
/// The text goes to the client as it is, so it must never hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    parameters: Vec<(String, String)>,
    delay: Duration,
}

impl ApiError {
    /// An error with the given status and text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            parameters: Vec::new(),
            delay: Duration::ZERO,
        }
    }

    /// 400, the status of everything unspecific.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401; always answered three seconds after the request came.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403 with a text of the handler's own.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 403 as a handler-level privilege check gives it; `privileges` are joined by `|`.
    pub fn missing_privilege(privileges: &str, path: &str) -> Self {
        Self::forbidden(format!(
            "permission check failed - missing {privileges} on {path}"
        ))
    }

    /// 400 for one parameter.
    pub fn parameter(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::parameters(vec![(name.into(), text.into())])
    }

    /// 400 for several parameters, in the order in which they are named.
    pub fn parameters(errors: Vec<(String, String)>) -> Self {
        Self {
            parameters: errors,
            ..Self::bad_request(String::new())
        }
    }

    /// 400 for what a parameter table found. (The general conversion would lose the names that extjs replies list.)
    pub fn from_parameters(errors: ParameterErrors) -> Self {
        Self::parameters(
            errors
                .iter()
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .collect(),
        )
    }

    /// The same error, answered no sooner than `delay` after the request came.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The status code.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// How long after the start of the request the reply may leave.
    pub fn delay(&self) -> Duration {
        if self.status == StatusCode::UNAUTHORIZED {
            Duration::from_secs(3)
        } else {
            self.delay
        }
    }

    /// Parameter errors: name and text.
    pub fn parameter_errors(&self) -> &[(String, String)] {
        &self.parameters
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parameters.as_slice() {
            [] => f.write_str(&self.message),
            [(name, text)] => write!(f, "parameter verification failed - '{name}': {text}"),
            many => {
                f.write_str("parameter verification failed:")?;
                for (name, text) in many {
                    write!(f, "\n- '{name}': {text}")?;
                }
                Ok(())
            }
        }
    }
}

impl<E: std::error::Error> From<E> for ApiError {
    fn from(err: E) -> Self {
        Self::bad_request(chain(&err))
    }
}

pub use backstop_outgoing::http_client::chain;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn one_parameter_error_is_one_line_and_several_are_a_list() {
        let one = ApiError::parameter("id", "value must be at least 3 characters long");
        assert_eq!(
            one.to_string(),
            "parameter verification failed - 'id': value must be at least 3 characters long"
        );
        let two = ApiError::parameters(vec![("a".into(), "x".into()), ("b".into(), "y".into())]);
        assert_eq!(
            two.to_string(),
            "parameter verification failed:\n- 'a': x\n- 'b': y"
        );
    }

    #[test]
    fn a_401_is_always_late() {
        assert_eq!(ApiError::unauthorized("x").delay(), Duration::from_secs(3));
        assert_eq!(ApiError::bad_request("x").delay(), Duration::ZERO);
    }
}

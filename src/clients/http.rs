//! Errors of HTTP requests.

use std::error::Error as StdError;

/// Returns the innermost cause of a failed request, such as `Connection refused (os error 111)`.
/// The outer causes describe layers of the HTTP library, and may contain a URL with a secret.
pub fn root_cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn StdError = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

//! Addresses and errors of HTTP requests.

use std::error::Error as StdError;

use url::Url;

use crate::clients::loopback::is_loopback;

/// Whether a secret may be sent to an address: the connection is encrypted, or stays on this
/// machine.
pub fn may_receive_secrets(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(is_loopback),
        _ => false,
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_sent_encrypted_or_to_this_machine() {
        let is_allowed = |url: &str| may_receive_secrets(&Url::parse(url).expect("a valid URL"));
        assert!(is_allowed("https://example.com") && is_allowed("http://[::1]:1/stage"));
        assert!(!is_allowed("http://example.com") && !is_allowed("http://127.0.0.1.example.com"));
        assert!(!is_allowed("ftp://127.0.0.1"));
    }
}

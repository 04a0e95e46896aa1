//! Refuses requests that web pages send through a browser.
//!
//! The local servers do not authenticate clients, so a browser on the same machine would otherwise
//! give every page the rights of its user. A page can send simple requests to an address of this
//! machine. After it has pointed its own host name to that address (DNS rebinding), it can also
//! read the responses. Headers that a page cannot change distinguish such requests from those of
//! other clients.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

/// Returns a refusal in the format of a server, from the request, the status and the message.
pub type Refuse = fn(&Request, StatusCode, &str) -> Response;

/// A request that is not processed.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
}

/// Wraps a router so that requests from pages of other sites are refused.
pub fn guard(router: Router, refuse: Refuse) -> Router {
    router.layer(from_fn_with_state(refuse, process))
}

async fn process(State(refuse): State<Refuse>, request: Request, next: Next) -> Response {
    let checked = check(request.method(), request.uri(), request.headers());
    match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(&request, refusal.status, &refusal.message),
    }
}

fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    check_host(uri, headers)?;
    check_origin(headers)?;
    check_content_type(method, headers)
}

/// Returns all values of a header.
fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name);
    values.iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

/// Requires that the host in a request is an IP address, as `local.host` is, or localhost.
fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let in_uri = uri.authority().map(ToString::to_string);
    for host in values(headers, "host").into_iter().chain(in_uri) {
        if !is_address(&host) {
            return Err(Refusal {
                status: StatusCode::MISDIRECTED_REQUEST,
                message: format!(
                    "cannot accept a request for the host `{host}`: a web page may have chosen \
                     this name; hint: use an IP address or localhost in the URL"
                ),
            });
        }
    }
    Ok(())
}

/// Returns whether a host, with or without a port, is an IP address or localhost. A page can point
/// any other name to this machine.
fn is_address(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    name.eq_ignore_ascii_case("localhost")
        || name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

/// Requires that no page of another site sent the request. Every browser sends `Origin` with a
/// cross-site request that can change something; most also send `Sec-Fetch-Site`.
fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let refusal = |page: String| Refusal {
        status: StatusCode::FORBIDDEN,
        message: format!(
            "cannot accept a request from {page}: web pages have no access to this server; hint: \
             use a client outside of the browser, such as curl"
        ),
    };
    let hosts = values(headers, "host");
    let is_own = |origin: &str| {
        let host = origin.strip_prefix("http://");
        host.is_some_and(|host| hosts.iter().any(|own| own.eq_ignore_ascii_case(host)))
    };
    let other = values(headers, "origin").into_iter().find(|origin| !is_own(origin));
    if let Some(origin) = other {
        return Err(refusal(format!("a page of `{origin}`")));
    }
    // <https://www.w3.org/TR/fetch-metadata/>; "none": the user entered the address.
    let is_allowed = |site: &String| site == "same-origin" || site == "none";
    if !values(headers, "sec-fetch-site").iter().all(is_allowed) {
        return Err(refusal("a page of another site".into()));
    }
    Ok(())
}

/// Refuses the content types of HTML forms that no client of these APIs sends. The third one,
/// `application/x-www-form-urlencoded`, is accepted, because `curl -d` sends it without `-H`.
fn check_content_type(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
        return Ok(());
    }
    for value in values(headers, "content-type") {
        let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if matches!(media_type.as_str(), "text/plain" | "multipart/form-data") {
            return Err(Refusal {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                message: format!(
                    "cannot accept the content type `{media_type}`: expected that of the API; \
                     hint: set the header content-type, such as to application/json"
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    /// Returns the status with which a request is refused, or `None` if it is accepted.
    fn refused(method: &Method, headers: &[(&'static str, &'static str)]) -> Option<u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let checked = check(method, &Uri::from_static("/connectors"), &map);
        checked.err().map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn accepts_addresses_and_refuses_names() {
        for host in ["127.0.0.1:8083", "localhost:8083", "LOCALHOST", "[::1]:8083", "192.0.2.7"] {
            assert_eq!(refused(&Method::GET, &[("host", host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8083",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost@evil.example",
            "",
        ] {
            assert_eq!(refused(&Method::GET, &[("host", host)]), Some(421), "{host}");
        }
        let both = [("host", "127.0.0.1"), ("host", "evil.example")];
        assert_eq!(refused(&Method::GET, &both), Some(421), "the second of two");
        assert_eq!(refused(&Method::GET, &[]), None, "HTTP/1.0 needs no host");
        let absolute = Uri::from_static("http://evil.example/connectors");
        assert!(check(&Method::GET, &absolute, &HeaderMap::new()).is_err());
    }

    #[test]
    fn refuses_pages_of_other_sites() {
        let with =
            |name, value| refused(&Method::POST, &[("host", "127.0.0.1:8083"), (name, value)]);
        for origin in
            ["https://evil.example", "null", "http://127.0.0.1:3000", "https://127.0.0.1:8083", ""]
        {
            assert_eq!(with("origin", origin), Some(403), "{origin}");
        }
        assert_eq!(with("origin", "http://127.0.0.1:8083"), None);
        for site in ["cross-site", "same-site", "what-comes-next"] {
            assert_eq!(with("sec-fetch-site", site), Some(403), "{site}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(with("sec-fetch-site", site), None, "{site}");
        }
    }

    #[test]
    fn refuses_the_content_types_of_forms_that_no_client_sends() {
        let post = |value| refused(&Method::POST, &[("content-type", value)]);
        for value in ["text/plain", "Text/Plain; charset=UTF-8", "multipart/form-data; boundary=x"]
        {
            assert_eq!(post(value), Some(415), "{value}");
        }
        for value in [
            "application/json",
            "application/vnd.kafka.json.v2+json",
            "application/x-amz-json-1.1",
            "application/x-amz-cbor-1.1",
            "application/cbor",
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(post(value), None, "{value}");
        }
        assert_eq!(refused(&Method::GET, &[("content-type", "text/plain")]), None);
    }
}

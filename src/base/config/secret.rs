//! Variables that contain secrets; detection and redaction of passwords in database URLs.

use url::Url;

/// Variables with secrets of pinpipe, which no other program needs. The URL of the database may
/// contain a password.
pub const SECRET_VARIABLES: [&str; 5] = [
    "PINPIPE_DATABASE_PASSWORD",
    "PINPIPE_KAFKA_PASSWORD",
    "PINPIPE_GATEWAY_API_KEY",
    "PINPIPE__DATABASE__URL",
    "DATABRICKS_TOKEN",
];

/// Options that contain a password. The libraries know the first; people also try the others.
const PASSWORD_OPTIONS: [&str; 3] = ["password", "passwd", "pwd"];

/// Returns the URL without password and options, for messages. Of a text in which the password
/// cannot be told from the rest, only the scheme remains.
pub fn redacted(url: &str) -> String {
    if url.starts_with("sqlite:") {
        // The path of a file.
        return url.to_string();
    }
    let Some(parsed) = unambiguous(url) else {
        let scheme = url.split(':').next().filter(|scheme| scheme.len() < url.len());
        return format!("{}://…", scheme.unwrap_or_default());
    };
    let user = parsed.username();
    let at = if user.is_empty() { "" } else { "@" };
    let address = &parsed[url::Position::BeforeHost..url::Position::AfterPath];
    format!("{}://{user}{at}{address}", parsed.scheme())
}

/// Whether a URL contains a password, before the `@` or in its query.
pub fn has_password(url: &str) -> bool {
    if url.starts_with("sqlite:") {
        return false;
    }
    match unambiguous(url) {
        Some(parsed) => {
            let mut options = parsed.query_pairs();
            parsed.password().is_some()
                || options.any(|(name, _)| PASSWORD_OPTIONS.contains(&&*name.to_lowercase()))
        }
        None => {
            let rest = url.split_once(':').map_or(url, |(_, rest)| rest).to_lowercase();
            rest.rsplit_once('@').is_some_and(|(user_info, _)| user_info.contains(':'))
                || PASSWORD_OPTIONS.iter().any(|name| rest.contains(&format!("{name}=")))
        }
    }
}

/// Parses a URL whose user, password and host are certain. An `@` after the host may be the end of
/// a password that contains `/`, `?` or `#`, of which the library takes the start for a port.
fn unambiguous(url: &str) -> Option<Url> {
    let parsed = Url::parse(url).ok()?;
    let is_certain = parsed.has_authority() && !parsed[url::Position::AfterPort..].contains('@');
    is_certain.then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_user_host_and_database() {
        for (url, shown) in [
            ("mysql://me:hunter2@db:3306/x", "mysql://me@db:3306/x"),
            ("mysql://me@db:3306/x", "mysql://me@db:3306/x"),
            ("mysql://me:a@b:er2@db/x", "mysql://me@db/x"),
            ("postgres://me@db/x?password=hunter2", "postgres://me@db/x"),
            ("postgres:///x?host=/run/postgresql", "postgres:///x"),
            ("postgres://me:hunter2@[::1]:5432/x", "postgres://me@[::1]:5432/x"),
            ("sqlite://a/b@c.db", "sqlite://a/b@c.db"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }

    #[test]
    fn no_form_of_a_password_is_shown_or_overlooked() {
        for url in [
            "mysql:me:hunter2@127.0.0.1/d",
            "postgres:/me:hunter2@127.0.0.1/d",
            "mysql://me:hunter2?x@127.0.0.1:9/d",
            "postgresql://me:p?hunter2@127.0.0.1/d",
            "mysql://me:hunt/er2@db/x",
            "mysql://me:hunt#er2@db/x",
            // A number before the separator is a valid port.
            "mysql://me:2/hunter2@db/x",
            "mysql://me:2?hunter2@db/x",
            "mysql://me:2#hunter2@db/x",
            "postgres://me@db/x?password=hunt@er2",
            "postgres://me@db/x?PASSWORD=hunter2",
            "mysql://me:a@b:er2@db/x",
        ] {
            let shown = redacted(url);
            assert!(!shown.contains("er2") && !shown.contains("hunt"), "{url}: {shown}");
            assert!(has_password(url), "{url}");
        }
        for url in ["mysql://me@db:3306/x", "sqlite://x.db", "postgres://db/x?sslmode=disable"] {
            assert!(!has_password(url), "{url}");
        }
    }
}

//! Passwords in database URLs: detection and redaction.

/// Returns the URL without password and query, for messages. Also redacts strings that are not
/// valid URLs, because error messages quote them.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.split('?').next().unwrap_or_default().to_string();
    };
    let rest = if scheme.starts_with("sqlite") {
        rest
    } else {
        rest.rsplit_once('?').map_or(rest, |(before, _)| before)
    };
    match rest.rsplit_once('@') {
        Some((user_info, address)) => {
            format!("{scheme}://{}@{address}", user_info.split(':').next().unwrap_or_default())
        }
        None => format!("{scheme}://{rest}"),
    }
}

/// Whether a URL contains a password, before the `@` or in its query.
pub fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    rest.rsplit_once('@').is_some_and(|(user_info, _)| user_info.contains(':'))
        || rest.to_lowercase().contains("password=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacts_passwords() {
        assert_eq!(redacted("mysql://me:hunter2@db:3306/x"), "mysql://me@db:3306/x");
        assert_eq!(redacted("sqlite://a/b.db"), "sqlite://a/b.db");
        for url in [
            "mysql://me:hunt/er2@db/x",
            "mysql://me:hunt#er2@db/x",
            "postgres://me@db/x?password=hunter2",
            "mysql://me:a@b:er2@db/x",
        ] {
            let shown = redacted(url);
            assert!(shown.contains("me@db/x") && !shown.contains("er2"), "{shown}");
            assert!(has_password(url), "{url}");
        }
        assert!(!has_password("mysql://me@db:3306/x") && !has_password("sqlite://x.db"));
    }
}

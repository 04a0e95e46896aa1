//! Databricks workspace and token, from the environment or from a profile of the Databricks CLI.

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result, io_error};
use crate::clients::http::may_receive_secrets;

/// A workspace and its access token.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// `https://….cloud.databricks.com`, without a trailing slash.
    pub host: String,
    pub token: SecretString,
}

/// Hint for missing credentials.
const CREDENTIALS_HINT: &str = "set DATABRICKS_HOST and DATABRICKS_TOKEN, or set \
    `databricks.profile` to a profile of ~/.databrickscfg (`databricks configure` writes one)";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Credentials {
    /// Resolves the host (the configured host, else DATABRICKS_HOST, else the host of the profile)
    /// and the token. With a configured profile, its token takes precedence over DATABRICKS_TOKEN.
    ///
    /// # Errors
    /// Host or token is missing; the host is invalid or not encrypted; the token was set for
    /// another host; the profile cannot be read.
    pub fn find(config: &Config) -> Result<Self> {
        let variable_host = variable("DATABRICKS_HOST");
        let explicit_host = Some(config.databricks.host.clone())
            .filter(|host| !host.is_empty())
            .or_else(|| variable_host.clone());
        let explicit_host = explicit_host.as_deref().map(validate_host).transpose()?;
        // A token belongs to the workspace it was configured with and must not reach another one.
        let token = config.secrets.databricks_token.clone();
        let from_environment = token.clone().filter(|_| {
            explicit_host.as_ref().is_some_and(|host| is_for(variable_host.as_deref(), host))
        });
        let profile_name = Some(config.databricks.profile.clone()).filter(|name| !name.is_empty());
        let profile_name = profile_name.or_else(|| variable("DATABRICKS_CONFIG_PROFILE"));
        if let (Some(host), Some(token), None) = (&explicit_host, &from_environment, &profile_name)
        {
            return Ok(Self { host: host.clone(), token: token.clone() });
        }
        let profile = Profile::read(profile_name.as_deref())?;
        let profile_host = profile.host.as_deref().map(validate_host).transpose()?;
        let host = explicit_host.or_else(|| profile_host.clone()).ok_or_else(|| {
            Error::usage("no Databricks workspace is configured").hint(CREDENTIALS_HINT)
        })?;
        let profile_host = profile_host.or(variable_host);
        let from_profile = profile
            .token
            .filter(|_| profile_host.is_some() && is_for(profile_host.as_deref(), &host));
        let candidate = if profile_name.is_some() {
            from_profile.or(from_environment)
        } else {
            from_environment.or(from_profile)
        };
        let token = candidate.ok_or_else(|| match (token, variable("DATABRICKS_HOST")) {
            (Some(_), Some(other)) if !is_for(Some(other.as_str()), &host) => Error::usage(
                format!("cannot send the Databricks token to {host}: DATABRICKS_HOST is `{other}`"),
            )
            .hint("set `databricks.host` and DATABRICKS_HOST to the same workspace, or remove one"),
            _ => Error::usage(format!("no Databricks token is configured for {host}"))
                .hint(CREDENTIALS_HINT),
        })?;
        Ok(Self { host, token })
    }
}

/// Whether a token that was given with an address, or with none, may be sent to a workspace.
fn is_for(given_with: Option<&str>, host: &str) -> bool {
    given_with.is_none_or(|address| validate_host(address).is_ok_and(|address| address == host))
}

/// Returns the base URL of a host that may receive a token: encrypted, or on this machine.
fn validate_host(host: &str) -> Result<String> {
    let address = if host.contains("://") { host.to_string() } else { format!("https://{host}") };
    let invalid = || {
        Error::usage(format!("expected the address of a Databricks workspace, got `{host}`"))
            .hint("use an address such as https://dbc-a1b2c3d4-e5f6.cloud.databricks.com")
    };
    let url = Url::parse(&address).map_err(|_| invalid())?;
    if !url.has_host() {
        return Err(invalid());
    }
    if !may_receive_secrets(&url) {
        return Err(Error::usage(format!(
            "cannot send the Databricks token to `{host}`: the connection is not encrypted"
        ))
        .hint("use an address that starts with https://"));
    }
    // Drops path and query, which an address copied from a browser contains.
    Ok(url[..url::Position::BeforePath].to_string())
}

/// One section of `~/.databrickscfg`.
#[derive(Debug, Default)]
struct Profile {
    host: Option<String>,
    token: Option<SecretString>,
}

impl Profile {
    /// Reads a profile. Without a name, reads DEFAULT, which is empty if it does not exist.
    fn read(name: Option<&str>) -> Result<Self> {
        let path = variable("DATABRICKS_CONFIG_FILE")
            .map(PathBuf::from)
            .or_else(|| Some(std::env::home_dir()?.join(".databrickscfg")));
        let path = path.unwrap_or_default();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name.is_none() => {
                return Ok(Self::default());
            }
            Err(error) => return Err(io_error("read", &path, error)),
        };
        match (Self::parse(&text, name.unwrap_or("DEFAULT")), name) {
            (Some(profile), _) => Ok(profile),
            (None, None) => Ok(Self::default()),
            (None, Some(name)) => Err(Error::usage(format!(
                "profile `{name}` does not exist in `{}`",
                path.display()
            ))
            .hint("run `databricks auth profiles` to list the existing profiles")),
        }
    }

    /// Returns the section with this name, or `None` if it does not exist.
    fn parse(text: &str, name: &str) -> Option<Self> {
        let mut section: Option<Self> = None;
        let mut is_inside = false;
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                is_inside = title.trim() == name;
                if is_inside {
                    section.get_or_insert_default();
                }
            } else if let Some((key, value)) = line.split_once('=').filter(|_| is_inside)
                && let Some(profile) = &mut section
            {
                let value = value.trim().to_string();
                match key.trim() {
                    "host" => profile.host = Some(value),
                    "token" => profile.token = Some(value.into()),
                    _ => {}
                }
            }
        }
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn finds_a_profile_among_others() {
        let text = "; mine\n[DEFAULT]\nhost = https://a\n\n[work]\n# a note\nhost=https://b/\ntoken = dapi=1\n[empty]\n";
        let work = Profile::parse(text, "work").expect("the profile exists");
        assert_eq!(work.host.as_deref(), Some("https://b/"));
        assert_eq!(work.token.expect("a token").expose_secret(), "dapi=1");
        assert!(Profile::parse(text, "DEFAULT").is_some_and(|profile| profile.token.is_none()));
        assert!(Profile::parse(text, "empty").is_some() && Profile::parse(text, "none").is_none());
    }

    #[test]
    fn a_token_belongs_to_the_host_it_was_given_with() {
        let host = "https://dbc-1.cloud.databricks.com";
        for same in ["dbc-1.cloud.databricks.com", "https://DBC-1.cloud.databricks.com:443/?o=1"] {
            assert!(is_for(Some(same), host), "{same}");
        }
        assert!(is_for(None, host));
        for other in ["https://dbc-2.cloud.databricks.com", "http://dbc-1.cloud.databricks.com"] {
            assert!(!is_for(Some(other), host), "{other}");
        }
    }

    #[test]
    fn allows_only_encrypted_or_local_addresses() {
        assert_eq!(
            validate_host("dbc-1.cloud.databricks.com").expect("a valid address"),
            "https://dbc-1.cloud.databricks.com"
        );
        assert_eq!(
            validate_host("https://dbc-1.cloud.databricks.com/?o=1#job").expect("a valid address"),
            "https://dbc-1.cloud.databricks.com"
        );
        assert_eq!(
            validate_host("http://127.0.0.1:99").expect("a valid address"),
            "http://127.0.0.1:99"
        );
        for invalid in [
            "http://dbc-1.cloud.databricks.com",
            "ftp://x",
            "https://",
            "http://127.0.0.1.example.com",
        ] {
            assert!(validate_host(invalid).is_err(), "{invalid}");
        }
    }
}

//! Which workspace, and as whom: the environment, else a profile of the CLI's file.

use std::path::PathBuf;

use secrecy::SecretString;
use url::{Host, Url};

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result, io_error};

/// A workspace and a token for it.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// `https://….cloud.databricks.com`, without a final slash.
    pub host: String,
    pub token: SecretString,
}

/// What a missing login says.
const HINT: &str = "set DATABRICKS_HOST and DATABRICKS_TOKEN, or name a profile of ~/.databrickscfg with `databricks.profile` (`databricks configure` writes it)";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Credentials {
    /// The configuration's host, DATABRICKS_HOST and DATABRICKS_TOKEN, else the profile's.
    ///
    /// # Errors
    /// Neither says which workspace, or with which token.
    pub fn find(config: &Config) -> Result<Self> {
        let own = Some(config.databricks.host.clone())
            .filter(|host| !host.is_empty())
            .or_else(|| variable("DATABRICKS_HOST"));
        let token = config.secrets.databricks_token.clone();
        let named = Some(config.databricks.profile.clone()).filter(|name| !name.is_empty());
        let named = named.or_else(|| variable("DATABRICKS_CONFIG_PROFILE"));
        if let (Some(host), Some(token), None) = (&own, &token, &named) {
            return Ok(Self {
                host: checked(host)?,
                token: token.clone(),
            });
        }
        let profile = Profile::read(named.as_deref())?;
        let theirs = profile.host.as_deref().map(checked).transpose()?;
        let own = own.as_deref().map(checked).transpose()?;
        let host = own.clone().or_else(|| theirs.clone());
        let host = host.ok_or_else(|| {
            Error::usage("it is not known which Databricks workspace to use").hint(HINT)
        })?;
        // A token is for the workspace that it came with: another must not see it.
        let from_profile = profile
            .token
            .filter(|_| theirs.is_none() || theirs.as_ref() == Some(&host));
        let from_environment = token.filter(|_| own.is_some());
        let found = if named.is_some() {
            from_profile.or(from_environment)
        } else {
            from_environment.or(from_profile)
        };
        let token = found.ok_or_else(|| {
            Error::usage(format!("there is no token for Databricks at {host}")).hint(HINT)
        })?;
        Ok(Self { host, token })
    }
}

/// An address that a token may be sent to: encrypted, or on this machine.
fn checked(host: &str) -> Result<String> {
    let whole = if host.contains("://") {
        host.to_string()
    } else {
        format!("https://{host}")
    };
    let wrong = || {
        Error::usage(format!("`{host}` is no address of a Databricks workspace"))
            .hint("it looks like https://dbc-a1b2c3d4-e5f6.cloud.databricks.com")
    };
    let url = Url::parse(&whole).map_err(|_| wrong())?;
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(wrong()),
    };
    if url.scheme() != "https" && !(is_here && url.scheme() == "http") {
        return Err(Error::usage(format!(
            "`{host}` is not encrypted: the token would be read on the way"
        ))
        .hint("write https:// in front of it"));
    }
    // What a browser's address bar holds after the host is not part of it.
    Ok(url[..url::Position::BeforePath].to_string())
}

/// One section of `~/.databrickscfg`.
#[derive(Debug, Default)]
struct Profile {
    host: Option<String>,
    token: Option<SecretString>,
}

impl Profile {
    /// `None` for a name: DEFAULT, which need not be there.
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
                "`{}` has no profile `{name}`",
                path.display()
            ))
            .hint("`databricks auth profiles` lists those there are")),
        }
    }

    /// The section of that name; `None`: there is none.
    fn parse(text: &str, name: &str) -> Option<Self> {
        let mut found: Option<Self> = None;
        let mut is_inside = false;
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with(['#', ';']))
        {
            if let Some(section) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                is_inside = section.trim() == name;
                if is_inside {
                    found.get_or_insert_default();
                }
            } else if let Some((key, value)) = line.split_once('=').filter(|_| is_inside)
                && let Some(profile) = &mut found
            {
                let value = value.trim().to_string();
                match key.trim() {
                    "host" => profile.host = Some(value),
                    "token" => profile.token = Some(value.into()),
                    _ => {}
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_profile_is_found_among_others() {
        let text = "; mine\n[DEFAULT]\nhost = https://a\n\n[work]\n# a note\nhost=https://b/\ntoken = dapi=1\n[empty]\n";
        let work = Profile::parse(text, "work").expect("is there");
        assert_eq!(work.host.as_deref(), Some("https://b/"));
        assert_eq!(work.token.expect("has one").expose_secret(), "dapi=1");
        assert!(Profile::parse(text, "DEFAULT").is_some_and(|profile| profile.token.is_none()));
        assert!(Profile::parse(text, "empty").is_some() && Profile::parse(text, "none").is_none());
    }

    #[test]
    fn a_token_goes_over_encrypted_lines_only() {
        assert_eq!(
            checked("dbc-1.cloud.databricks.com").expect("is one"),
            "https://dbc-1.cloud.databricks.com"
        );
        assert_eq!(
            checked("https://dbc-1.cloud.databricks.com/?o=1#job").expect("is one"),
            "https://dbc-1.cloud.databricks.com"
        );
        assert_eq!(
            checked("http://127.0.0.1:99").expect("is one"),
            "http://127.0.0.1:99"
        );
        for wrong in [
            "http://dbc-1.cloud.databricks.com",
            "ftp://x",
            "https://",
            "http://127.0.0.1.example.com",
        ] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
    }
}

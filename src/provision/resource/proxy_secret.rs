//! The password that the REST proxy asks for and that only the API and the machine know.

use std::rc::Rc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::{Reading, Resource};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::provision::account::Account;
use crate::provision::parameter;

pub const KEY: &str = "proxy-secret";
/// The user that the password belongs to.
pub const USER: &str = "api-gateway";

pub struct ProxySecret {
    pub account: Rc<Account>,
}

/// Name of the parameter that keeps it.
pub fn name(config: &Config) -> String {
    format!("/pinpipe/{}/proxy-password", config.id)
}

/// The header that the API adds to each request to the proxy.
///
/// # Errors
/// The password has not been made yet.
pub async fn authorization(account: &Account) -> Result<SecretString> {
    let secret = parameter::get(account, &name(&account.config)).await?;
    let secret = secret
        .ok_or_else(|| Error::failed("the proxy's password is not there yet").hint("`pinpipe provision --only proxy-secret` makes it"))?;
    Ok(format!("Basic {}", STANDARD.encode(format!("{USER}:{}", secret.expose_secret()))).into())
}

#[async_trait(?Send)]
impl Resource for ProxySecret {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "proxy-secret"
    }

    fn name(&self) -> String {
        name(&self.account.config)
    }

    async fn read(&self) -> Result<Reading> {
        let is_there = parameter::exists(&self.account, &self.name()).await?;
        Ok(if is_there { Reading::good("in Parameter Store") } else { Reading::missing() })
    }

    async fn create(&self) -> Result<()> {
        // 256 random bits, in letters and digits only: it stands in a properties file.
        let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        parameter::put(&self.account, KEY, &self.name(), &secret.into(), "password of pinpipe's REST proxy").await
    }

    /// Nothing of it can differ.
    async fn update(&self) -> Result<()> {
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        parameter::delete(&self.account, &self.name()).await
    }
}

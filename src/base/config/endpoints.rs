//! Endpoints: where each service is, so that no stage asks which target it runs on.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::base::config::outputs::Outputs;
use crate::base::config::runtime::{Addresses, Runtime};
use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result};

/// Resolves addresses from the configuration, or from the running local stack.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints<'a>(&'a Config);

impl Config {
    /// Where each service is.
    pub fn endpoints(&self) -> Endpoints<'_> {
        Endpoints(self)
    }

    /// The same configuration with every address of a stack that runs in this process.
    pub fn with_addresses(mut self, addresses: &Addresses) -> Self {
        self.kafka.bootstrap_servers = addresses.kafka.clone();
        self.gateway.url = format!("http://{}", addresses.gateway);
        self.kinesis.endpoint_url = format!("http://{}", addresses.kinesis);
        self
    }
}

impl Endpoints<'_> {
    /// `host:port,…` of the Kafka brokers.
    pub fn bootstrap_servers(&self) -> Result<String> {
        self.pick(
            &self.0.kafka.bootstrap_servers,
            "kafka.bootstrap_servers",
            |addresses| addresses.kafka,
            |outputs| outputs.bootstrap_servers,
        )
    }

    /// Base URL of the gateway, without a final slash.
    pub fn gateway_url(&self) -> Result<String> {
        let local = |addresses: Addresses| format!("http://{}", addresses.gateway);
        let url = self.pick(&self.0.gateway.url, "gateway.url", local, |outputs| {
            outputs.gateway_url
        })?;
        Ok(url.trim_end_matches('/').to_string())
    }

    /// Endpoint of the Kinesis API; `None` is the region's own.
    pub fn kinesis_url(&self) -> Result<Option<String>> {
        match self.0.target {
            Target::Aws => {
                let own = Some(&self.0.kinesis.endpoint_url).filter(|url| !url.is_empty());
                Ok(own
                    .or(Some(&self.0.aws.endpoint_url).filter(|url| !url.is_empty()))
                    .cloned())
            }
            Target::Local => self
                .pick(
                    &self.0.kinesis.endpoint_url,
                    "kinesis.endpoint_url",
                    |addresses| format!("http://{}", addresses.kinesis),
                    |_| None,
                )
                .map(Some),
        }
    }

    /// Base URL of the local control interface (connectors and routes).
    ///
    /// # Errors
    /// On target aws there is none, on target local nothing may be running.
    pub fn control_url(&self) -> Result<String> {
        self.pick(
            "",
            "control",
            |addresses| format!("http://{}", addresses.control),
            |_| None,
        )
    }

    /// The database URL, password included.
    pub fn database_url(&self) -> Result<SecretString> {
        let text = self.0.database.url.expose_secret();
        if text.is_empty() {
            return Ok(format!("sqlite://{}", self.0.data_dir.join("source.db").display()).into());
        }
        let Some(password) = &self.0.secrets.database_password else {
            return Ok(text.into());
        };
        if text.starts_with("sqlite:") {
            return Ok(text.into());
        }
        let mut url = url::Url::parse(text).map_err(|error| {
            Error::usage("`database.url` is not a valid address").with_source(error)
        })?;
        url.set_password(Some(password.expose_secret()))
            .map_err(|()| Error::usage("`database.url` cannot carry a password"))?;
        Ok(url.to_string().into())
    }

    /// The lake: `s3://…`, or the folder that holds a folder for each bucket.
    pub fn lake_url(&self) -> String {
        match self.0.target {
            Target::Aws if self.0.lake.url.is_empty() => format!("s3://{}", self.0.bucket()),
            _ => self.location(&self.0.lake.url, "lake"),
        }
    }

    /// Where Delta tables go.
    pub fn tables_url(&self) -> String {
        match self.0.target {
            Target::Aws if self.0.tables.url.is_empty() => {
                format!("s3://{}/tables", self.0.bucket())
            }
            _ => self.location(&self.0.tables.url, "tables"),
        }
    }

    fn location(&self, configured: &str, name: &str) -> String {
        match configured {
            "" => self.0.data_dir.join(name).to_string_lossy().into_owned(),
            configured => configured
                .strip_prefix("file://")
                .unwrap_or(configured)
                .to_string(),
        }
    }

    fn pick(
        &self,
        configured: &str,
        key: &str,
        local: impl FnOnce(Addresses) -> String,
        provisioned: impl FnOnce(Outputs) -> Option<String>,
    ) -> Result<String> {
        if !configured.is_empty() {
            return Ok(configured.to_string());
        }
        match self.0.target {
            Target::Local => Ok(local(Runtime::read(&self.0.data_dir)?.addresses)),
            Target::Aws => provisioned(Outputs::read(&self.0.data_dir)?).ok_or_else(|| {
                Error::failed(format!("`{key}` is not set, and nothing is known to be provisioned"))
                    .hint("`pinpipe provision` makes it, `pinpipe status` finds what is there, or name it in the configuration")
            }),
        }
    }
}

/// The bucket the sink writes to, as a location to read from: `s3://bucket`, or
/// the bucket's folder inside a folder lake.
pub fn lake_bucket(config: &Config) -> String {
    let lake = config.endpoints().lake_url();
    if lake.starts_with("s3://") {
        return lake;
    }
    PathBuf::from(lake)
        .join(config.bucket())
        .to_string_lossy()
        .into_owned()
}

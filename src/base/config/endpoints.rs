//! Endpoints: the address of each service, so that no stage depends on the target.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::base::config::data_dir::DataEntry;
use crate::base::config::outputs::Outputs;
use crate::base::config::runtime::{Addresses, Runtime};
use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result};

/// Resolves addresses from the configuration, the running local stack or the provisioned
/// resources.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints<'a>(&'a Config);

impl Config {
    /// Addresses of the services.
    pub fn endpoints(&self) -> Endpoints<'_> {
        Endpoints(self)
    }

    /// Returns the configuration with the addresses of a local stack that runs in this process.
    pub fn with_addresses(mut self, addresses: &Addresses) -> Self {
        self.kafka.bootstrap_servers = addresses.kafka.clone();
        self.gateway.url = format!("http://{}", addresses.gateway);
        self.kinesis.endpoint_url = format!("http://{}", addresses.kinesis);
        self
    }
}

impl Endpoints<'_> {
    /// Returns `host:port,…` of the Kafka brokers.
    pub fn bootstrap_servers(&self) -> Result<String> {
        self.resolve(
            &self.0.kafka.bootstrap_servers,
            "kafka.bootstrap_servers",
            |addresses| addresses.kafka,
            |outputs| outputs.bootstrap_servers,
        )
    }

    /// Returns the base URL of the gateway, without a trailing slash.
    pub fn gateway_url(&self) -> Result<String> {
        let local = |addresses: Addresses| format!("http://{}", addresses.gateway);
        let url =
            self.resolve(&self.0.gateway.url, "gateway.url", local, |outputs| outputs.gateway_url)?;
        Ok(url.trim_end_matches('/').to_string())
    }

    /// Returns the endpoint of the Kinesis API; `None` is the default endpoint of the region.
    pub fn kinesis_url(&self) -> Result<Option<String>> {
        match self.0.target {
            Target::Aws => {
                let configured = Some(&self.0.kinesis.endpoint_url).filter(|url| !url.is_empty());
                Ok(configured
                    .or(Some(&self.0.aws.endpoint_url).filter(|url| !url.is_empty()))
                    .cloned())
            }
            Target::Local => self
                .resolve(
                    &self.0.kinesis.endpoint_url,
                    "kinesis.endpoint_url",
                    |addresses| format!("http://{}", addresses.kinesis),
                    |_| None,
                )
                .map(Some),
        }
    }

    /// Returns the base URL of the local control interface (connectors and routes).
    ///
    /// # Errors
    /// The target is aws, which has no control interface; the local stack is not running.
    pub fn control_url(&self) -> Result<String> {
        self.resolve("", "control", |addresses| format!("http://{}", addresses.control), |_| None)
    }

    /// Returns the database URL with the password.
    ///
    /// # Errors
    /// `database.url` is invalid or cannot contain a password.
    pub fn database_url(&self) -> Result<SecretString> {
        let text = self.0.database.url.expose_secret();
        if text.is_empty() {
            return Ok(format!(
                "sqlite://{}",
                DataEntry::SourceDatabase.path(&self.0.data_dir).display()
            )
            .into());
        }
        let Some(password) = &self.0.secrets.database_password else {
            return Ok(text.into());
        };
        if text.starts_with("sqlite:") {
            return Ok(text.into());
        }
        let mut url = url::Url::parse(text).map_err(|error| {
            Error::usage("`database.url` is not a valid URL").with_source(error)
        })?;
        url.set_password(Some(password.expose_secret()))
            .map_err(|()| Error::usage("`database.url` cannot contain a password"))?;
        Ok(url.to_string().into())
    }

    /// Returns the location of the lake: `s3://…`, or the folder with one subfolder per bucket.
    pub fn lake_url(&self) -> String {
        match self.0.target {
            Target::Aws if self.0.lake.url.is_empty() => format!("s3://{}", self.0.bucket()),
            _ => self.location(&self.0.lake.url, DataEntry::Lake),
        }
    }

    /// Returns the location of the Delta tables.
    pub fn tables_url(&self) -> String {
        match self.0.target {
            Target::Aws if self.0.tables.url.is_empty() => {
                format!("s3://{}/tables", self.0.bucket())
            }
            _ => self.location(&self.0.tables.url, DataEntry::Tables),
        }
    }

    fn location(&self, configured: &str, entry: DataEntry) -> String {
        match configured {
            "" => entry.path(&self.0.data_dir).to_string_lossy().into_owned(),
            configured => configured.strip_prefix("file://").unwrap_or(configured).to_string(),
        }
    }

    /// Returns the configured value, or the address of the running or provisioned service.
    fn resolve(
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
                Error::failed(format!(
                    "`{key}` is not set, and no provisioned resource provides it"
                ))
                .hint(
                    "run `pinpipe provision` to create the resource or `pinpipe status` to find an \
                     existing one, or set the key in the configuration",
                )
            }),
        }
    }
}

/// Returns the location of the objects that the sink writes: `s3://bucket`, or the subfolder of the
/// bucket if the lake is a folder.
pub fn lake_bucket(config: &Config) -> String {
    let lake = config.endpoints().lake_url();
    if lake.starts_with("s3://") {
        return lake;
    }
    PathBuf::from(lake).join(config.bucket()).to_string_lossy().into_owned()
}

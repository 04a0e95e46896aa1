//! Airflow connection to Databricks: host and token of the configured credentials.

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use url::Url;

use crate::base::config::schema::Config;
use crate::base::error::{ErrorContext, Result};
use crate::clients::airflow::AirflowApi;
use crate::clients::databricks::auth::Credentials;

/// Connection id, the default one of Airflow's Databricks operators.
pub const CONNECTION: &str = "databricks_default";

/// The connection in an Airflow environment.
pub struct Connection<'a> {
    config: &'a Config,
    api: AirflowApi,
}

impl<'a> Connection<'a> {
    pub fn new(config: &'a Config, client: aws_sdk_mwaa::Client) -> Self {
        Self { config, api: AirflowApi::of(config, client) }
    }

    fn path() -> String {
        format!("/connections/{CONNECTION}")
    }

    /// Description that marks the connection as managed by pinpipe for this pipeline.
    fn description(&self) -> String {
        format!("made by pinpipe for {}", self.config.id)
    }

    fn body(&self) -> Result<Value> {
        let credentials = Credentials::find(self.config)?;
        let mut body = self.workspace(&credentials)?;
        body["connection_id"] = json!(CONNECTION);
        body["description"] = json!(self.description());
        // Airflow stores the token encrypted and never returns it.
        body["password"] = json!(credentials.token.expose_secret());
        Ok(body)
    }

    /// Returns the workspace as connection fields. Airflow's Databricks provider reads only a host
    /// name from `host`, and uses HTTPS on its default port unless `schema` and `port` are set.
    fn workspace(&self, credentials: &Credentials) -> Result<Value> {
        let url = Url::parse(&credentials.host)
            .context(|| format!("cannot parse `{}` as a URL", credentials.host))?;
        let scheme = Some(url.scheme()).filter(|scheme| *scheme != "https").unwrap_or_default();
        Ok(
            json!({ "conn_type": "databricks", "host": url.host_str(), "schema": scheme, "port": url.port() }),
        )
    }

    /// Reads the connection, without the token. Returns `None` if it does not exist.
    pub async fn find(&self) -> Result<Option<Value>> {
        match self.api.get(&Self::path(), Value::Null).await {
            Ok(connection) => Ok(Some(connection)),
            Err(refusal) if refusal.status == 404 => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Returns whether the connection is managed by pinpipe for this pipeline.
    pub fn is_managed(&self, found: &Value) -> bool {
        found["description"] == self.description()
    }

    /// Returns whether this is the example connection that Airflow creates with its database, which
    /// has no valid host.
    pub fn is_example(found: &Value) -> bool {
        found["host"] == "localhost" && found["description"].as_str().is_none_or(str::is_empty)
    }

    /// Returns the drift of the connection, without the token, which Airflow does not return.
    pub fn differences(&self, found: &Value) -> Result<Vec<String>> {
        // Without credentials the connection can still be shown and deleted.
        let Ok(credentials) = Credentials::find(self.config) else {
            return Ok(Vec::new());
        };
        let expected = self.workspace(&credentials)?;
        let is_same = |(key, value): (&String, &Value)| {
            found[key] == *value || *value == "" && found[key].is_null()
        };
        let members = expected.as_object().into_iter().flatten();
        Ok(members
            .filter(|member| !is_same(*member))
            .map(|(key, value)| format!("its {key} is {}, not {value}", found[key]))
            .collect())
    }

    /// Creates the connection, or updates an existing one.
    pub async fn create(&self) -> Result<()> {
        match self.api.post("/connections", self.body()?).await {
            // 409: an earlier attempt created it, but its response was lost.
            Err(refusal) if refusal.status == 409 => self.update().await,
            response => Ok(response.map(|_| ())?),
        }
    }

    /// Sets host and token to those of the configured credentials.
    pub async fn update(&self) -> Result<()> {
        Ok(self.api.patch(&Self::path(), self.body()?).await.map(|_| ())?)
    }

    /// Deletes the connection. Returns `false` if it did not exist.
    pub async fn delete(&self) -> Result<bool> {
        match self.api.delete(&Self::path()).await {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.status == 404 => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

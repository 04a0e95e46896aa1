//! Airflow's connection to Databricks: its address, and the token from the environment.

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use url::Url;

use crate::base::config::schema::Config;
use crate::base::error::{ErrorContext, Result};
use crate::clients::airflow::AirflowApi;
use crate::clients::databricks::auth::Credentials;

/// Its name, which is the one that Airflow's operators look for.
pub const CONNECTION: &str = "databricks_default";

/// The connection of an environment.
pub struct Connection<'a> {
    config: &'a Config,
    api: AirflowApi,
}

impl<'a> Connection<'a> {
    pub fn new(config: &'a Config, client: aws_sdk_mwaa::Client) -> Self {
        Self {
            config,
            api: AirflowApi::of(config, client),
        }
    }

    fn path() -> String {
        format!("/connections/{CONNECTION}")
    }

    /// What says that pinpipe made it for this pipeline.
    fn description(&self) -> String {
        format!("made by pinpipe for {}", self.config.id)
    }

    fn body(&self) -> Result<Value> {
        let login = Credentials::find(self.config)?;
        let mut body = self.place(&login)?;
        body["connection_id"] = json!(CONNECTION);
        body["description"] = json!(self.description());
        // Airflow keeps it encrypted and shows it to nobody.
        body["password"] = json!(login.token.expose_secret());
        Ok(body)
    }

    /// The workspace as the provider takes it: it reads only a name from `host`, and asks by
    /// https at the usual port unless it is told otherwise.
    fn place(&self, login: &Credentials) -> Result<Value> {
        let url = Url::parse(&login.host)
            .context(|| format!("`{}` is not a valid address", login.host))?;
        let scheme = Some(url.scheme())
            .filter(|scheme| *scheme != "https")
            .unwrap_or_default();
        Ok(
            json!({ "conn_type": "databricks", "host": url.host_str(), "schema": scheme, "port": url.port() }),
        )
    }

    /// As Airflow shows it, without the token. `None`: there is none.
    pub async fn find(&self) -> Result<Option<Value>> {
        match self.api.get(&Self::path(), Value::Null).await {
            Ok(found) => Ok(Some(found)),
            Err(refusal) if refusal.status == 404 => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Whether pinpipe made it.
    pub fn is_ours(&self, found: &Value) -> bool {
        found["description"] == self.description()
    }

    /// Whether it is the example that Airflow makes with its database, which leads nowhere.
    pub fn is_example(found: &Value) -> bool {
        found["host"] == "localhost" && found["description"].as_str().is_none_or(str::is_empty)
    }

    /// What differs from what is wanted; a token that is another cannot be seen.
    pub fn differences(&self, found: &Value) -> Result<Vec<String>> {
        // Who is not logged in can still see, and remove, what is there.
        let Ok(login) = Credentials::find(self.config) else {
            return Ok(Vec::new());
        };
        let wanted = self.place(&login)?;
        let is_same = |(key, value): (&String, &Value)| {
            found[key] == *value || *value == "" && found[key].is_null()
        };
        let members = wanted.as_object().into_iter().flatten();
        Ok(members
            .filter(|member| !is_same(*member))
            .map(|(key, value)| format!("its {key} is {}, not {value}", found[key]))
            .collect())
    }

    pub async fn create(&self) -> Result<()> {
        match self.api.post("/connections", self.body()?).await {
            // An attempt whose answer got lost had its effect.
            Err(refusal) if refusal.status == 409 => self.update().await,
            made => Ok(made.map(|_| ())?),
        }
    }

    /// Gives it the address and the token that are known here.
    pub async fn update(&self) -> Result<()> {
        Ok(self
            .api
            .patch(&Self::path(), self.body()?)
            .await
            .map(|_| ())?)
    }

    /// `false`: it was not there.
    pub async fn delete(&self) -> Result<bool> {
        match self.api.delete(&Self::path()).await {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.status == 404 => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

//! Client of the control interface of the local stack: connectors and routes.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::http::root_cause;

/// State of a connector and its only task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectorStatus {
    pub name: String,
    /// RUNNING, PAUSED or FAILED, as Kafka Connect reports it.
    pub state: String,
    /// Error that failed the task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<String>,
    /// Records consumed and objects written since the task started.
    pub records: u64,
    pub objects: u64,
}

/// A deployment of the gateway's routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    pub deployed_at: chrono::DateTime<chrono::Utc>,
    pub routes: Vec<String>,
}

/// A client of the control interface of a running local stack.
pub struct ControlClient {
    http: reqwest::Client,
    url: String,
}

impl ControlClient {
    /// Creates a client for the running local stack.
    ///
    /// # Errors
    /// No local stack is running, or the target is aws.
    pub fn new(config: &Config) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .build()
            .context(|| "cannot create an HTTP client")?;
        Ok(Self { http, url: config.endpoints().control_url()? })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let unreachable = || format!("cannot reach the local stack at {}", self.url);
        let response = request.send().await.map_err(|error| {
            Error::failed(unreachable())
                .with_source(root_cause(error))
                .hint("run `pinpipe local` in another terminal")
        })?;
        let status = response.status();
        let text = response.bytes().await.map_err(root_cause).context(unreachable)?;
        let body = serde_json::from_slice(&text).unwrap_or(Value::Null);
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok((status, body));
        }
        let message = body
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or("no reason was given")
            .to_string();
        Err(if status == StatusCode::BAD_REQUEST {
            Error::usage(message).hint("correct `[connector.properties]` in the configuration")
        } else {
            Error::failed(message)
        })
    }

    /// Returns the names of all connectors.
    pub async fn connectors(&self) -> Result<Vec<String>> {
        let (_, body) = self.call(Method::GET, "/connectors", None).await?;
        serde_json::from_value(body).context(|| "unexpected response from the local stack")
    }

    /// Returns the properties of a connector, or `None` if it does not exist.
    pub async fn connector_config(&self, name: &str) -> Result<Option<BTreeMap<String, String>>> {
        let (status, body) =
            self.call(Method::GET, &format!("/connectors/{name}/config"), None).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        serde_json::from_value(body)
            .map(Some)
            .context(|| "unexpected response from the local stack")
    }

    /// Creates a connector or replaces its properties.
    pub async fn put_connector(
        &self,
        name: &str,
        properties: &BTreeMap<String, String>,
    ) -> Result<()> {
        self.call(Method::PUT, &format!("/connectors/{name}/config"), Some(json!(properties)))
            .await
            .map(|_| ())
    }

    /// Returns the state of a connector, or `None` if it does not exist.
    pub async fn connector_status(&self, name: &str) -> Result<Option<ConnectorStatus>> {
        let (status, body) =
            self.call(Method::GET, &format!("/connectors/{name}/status"), None).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let task = body.pointer("/tasks/0").cloned().unwrap_or_default();
        let text = |key: &str| task.get(key).and_then(Value::as_str).map(String::from);
        let number = |key: &str| task.get(key).and_then(Value::as_u64).unwrap_or(0);
        Ok(Some(ConnectorStatus {
            name: name.to_string(),
            state: text("state").unwrap_or_default(),
            trace: text("trace"),
            records: number("records"),
            objects: number("objects"),
        }))
    }

    /// Runs `pause`, `resume` or `restart`. Returns `false` if the connector does not exist.
    pub async fn connector_action(&self, name: &str, action: &str) -> Result<bool> {
        let method = if action == "restart" { Method::POST } else { Method::PUT };
        let (status, _) = self.call(method, &format!("/connectors/{name}/{action}"), None).await?;
        Ok(status != StatusCode::NOT_FOUND)
    }

    /// Deletes a connector. Returns `false` if it does not exist.
    pub async fn delete_connector(&self, name: &str) -> Result<bool> {
        let (status, _) = self.call(Method::DELETE, &format!("/connectors/{name}"), None).await?;
        Ok(status != StatusCode::NOT_FOUND)
    }

    /// Returns the deployed routes, if any.
    pub async fn routes(&self) -> Result<Option<Deployment>> {
        let (status, body) = self.call(Method::GET, "/api", None).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        serde_json::from_value(body)
            .map(Some)
            .context(|| "unexpected response from the local stack")
    }

    /// Deploys the routes. Routes that are already deployed are kept.
    pub async fn deploy_routes(&self) -> Result<Deployment> {
        let (_, body) = self.call(Method::PUT, "/api", None).await?;
        serde_json::from_value(body).context(|| "unexpected response from the local stack")
    }

    /// Deletes the routes. Returns `false` if none are deployed.
    pub async fn delete_routes(&self) -> Result<bool> {
        let (status, _) = self.call(Method::DELETE, "/api", None).await?;
        Ok(status != StatusCode::NOT_FOUND)
    }
}

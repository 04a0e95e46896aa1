//! Whether the API that was provisioned answers.

use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::shutdown::run_until_shutdown;
use crate::clients::gateway::GatewayClient;

/// Longest time one answer may take: API Gateway itself gives up after 29 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the proxy, through the API, for the pipeline's first topic.
///
/// # Errors
/// It does not answer, or refuses: a new key or stage may take some seconds. Ctrl-C.
pub async fn verify_api(config: &Config) -> Result<String> {
    let stopped = || {
        Error::failed("stopped before the API had answered")
            .hint("`pinpipe api status` asks it again")
    };
    run_until_shutdown(ask(config), stopped).await
}

async fn ask(config: &Config) -> Result<String> {
    let client = GatewayClient::new(config, PATIENCE, 1).await?;
    let topic = config.topic(crate::base::model::Kind::Pin);
    let began = Instant::now();
    loop {
        let response = client
            .send(Method::GET, &format!("/topics/{topic}"), None)
            .await?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(format!("the API answers: {}", client.url()));
        }
        let is_new = status == 403
            && began.elapsed().as_millis() < u128::from(config.provision.patience_ms) * 4;
        if !is_new {
            let hint = match status {
                401 => {
                    "the proxy refuses the API's password: restart the service kafka-rest on the client machine"
                }
                403 => {
                    "the API refuses the key: `pinpipe provision --plan` shows whether the usage plan holds it"
                }
                500 | 502 | 504 => {
                    "the API does not reach the proxy: is the client machine running? `pinpipe status` says so"
                }
                _ => "`pinpipe provision --plan` shows what differs",
            };
            return Err(Error::failed(format!(
                "the API at {} answers HTTP {status}",
                client.url()
            ))
            .hint(hint));
        }
        tokio::time::sleep(Duration::from_millis(config.provision.patience_ms / 8)).await;
    }
}

//! Verification that the provisioned API responds.

use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::shutdown::run_until_shutdown;
use crate::clients::gateway::GatewayClient;

/// Maximum time for one response. The integration timeout of API Gateway is 29 s.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests the pipeline's first topic from the proxy through the API.
///
/// A new key or stage may take some seconds to become active: HTTP 403 is retried for four times
/// `provision.consistency_timeout_ms`.
///
/// # Errors
/// The API does not respond; it rejects the request; Ctrl-C.
pub async fn verify_api(config: &Config) -> Result<String> {
    let interrupted = || {
        Error::interrupted("interrupted before the API responded")
            .hint("check the API with `pinpipe api status`")
    };
    run_until_shutdown(request_topic(config), interrupted).await
}

async fn request_topic(config: &Config) -> Result<String> {
    let client = GatewayClient::new(config, RESPONSE_TIMEOUT, 1).await?;
    let topic = config.topic(crate::base::model::Kind::Pin);
    let start = Instant::now();
    loop {
        let response = client.send(Method::GET, &format!("/topics/{topic}"), None).await?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(format!("the API responds: {}", client.url()));
        }
        let may_be_inactive = status == 403
            && start.elapsed().as_millis()
                < u128::from(config.provision.consistency_timeout_ms) * 4;
        if !may_be_inactive {
            let hint = match status {
                401 => {
                    "the proxy rejects the API's password: restart the service `kafka-rest` on \
                     the client machine"
                }
                403 => {
                    "the API rejects the key: check with `pinpipe provision --plan` that the usage \
                     plan contains the key"
                }
                500 | 502 | 504 => {
                    "the API cannot reach the proxy: check with `pinpipe status` that the client \
                     machine is running"
                }
                _ => "show the drift with `pinpipe provision --plan`",
            };
            return Err(Error::failed(format!(
                "cannot call the API at {}: HTTP {status}",
                client.url()
            ))
            .hint(hint));
        }
        tokio::time::sleep(Duration::from_millis(config.provision.consistency_timeout_ms / 8))
            .await;
    }
}

//! Callbacks of librdkafka: its log, and the IAM tokens for Amazon MSK.

use std::error::Error as StdError;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use crate::base::config::schema::Config;

/// Client context of producers, consumers and admin clients.
#[derive(Debug, Clone)]
pub struct Context {
    region: String,
    profile: String,
}

impl Context {
    pub fn new(config: &Config) -> Self {
        Self { region: config.aws.region.clone(), profile: config.aws.profile.clone() }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Connection failures are also reported as errors of the calls that need the connection.
        match level {
            RDKafkaLogLevel::Debug => tracing::trace!(target: "kafka", facility, message),
            _ => tracing::debug!(target: "kafka", facility, message),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "kafka", %error, reason);
    }

    /// Signs a token. Called by `authenticate`, and by a poll before the previous token expires.
    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        let region = aws_config::Region::new(self.region.clone());
        let profile = self.profile.clone();
        // On a separate thread, because the caller may run inside a Tokio runtime.
        let token = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            let signed = runtime.block_on(async {
                if profile.is_empty() {
                    aws_msk_iam_sasl_signer::generate_auth_token(region).await
                } else {
                    aws_msk_iam_sasl_signer::generate_auth_token_from_profile(region, profile).await
                }
            });
            signed.map_err(|error| error.to_string())
        });
        let (token, lifetime_ms) = token.join().map_err(|_| "signing the MSK token panicked")??;
        Ok(OAuthToken { token, principal_name: String::new(), lifetime_ms })
    }
}

impl ConsumerContext for Context {}

//! AWS SDK clients with one shared configuration; `call.rs` adds hints to failed calls.

pub mod call;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::{Credentials, SharedCredentialsProvider};
use secrecy::SecretString;

use crate::base::config::outputs::Outputs;
use crate::base::config::schema::{ApiAuth, Config, Target};
use crate::base::error::Result;
use crate::clients::aws::call::CallContext;

/// Loads the configuration of all clients: region, profile, endpoint, credentials.
pub async fn sdk_config(config: &Config) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(config.aws.region.clone()))
        .retry_config(RetryConfig::standard().with_max_attempts(config.aws.attempts));
    if !config.aws.profile.is_empty() {
        loader = loader.profile_name(&config.aws.profile);
    }
    if !config.aws.endpoint_url.is_empty() {
        loader = loader.endpoint_url(&config.aws.endpoint_url);
    }
    loader.load().await
}

/// Creates a client of the Kinesis endpoint that the configuration resolves to.
///
/// # Errors
/// The target is local and no local stack is running.
pub async fn kinesis(config: &Config) -> Result<aws_sdk_kinesis::Client> {
    let url = config.endpoints().kinesis_url()?;
    if config.target == Target::Local {
        // The local endpoint accepts any credentials; resolving real ones would take seconds.
        let mut client = aws_sdk_kinesis::Config::builder();
        client.set_behavior_version(Some(aws_sdk_kinesis::config::BehaviorVersion::latest()));
        client.set_region(Some(Region::new(config.aws.region.clone())));
        client.set_credentials_provider(Some(SharedCredentialsProvider::new(Credentials::new(
            "local",
            "local",
            None,
            None,
            "pinpipe local",
        ))));
        client.set_endpoint_url(url);
        return Ok(aws_sdk_kinesis::Client::from_conf(client.build()));
    }
    let shared = sdk_config(config).await;
    let mut client = aws_sdk_kinesis::config::Builder::from(&shared);
    if url.is_some() {
        client.set_endpoint_url(url);
    }
    Ok(aws_sdk_kinesis::Client::from_conf(client.build()))
}

/// Creates an S3 client. A custom endpoint gets path-style requests, because host names for its
/// buckets do not resolve.
pub fn s3(shared: &SdkConfig) -> aws_sdk_s3::Client {
    let has_custom_endpoint = shared.endpoint_url().is_some();
    let config = aws_sdk_s3::config::Builder::from(shared).force_path_style(has_custom_endpoint);
    aws_sdk_s3::Client::from_conf(config.build())
}

/// Creates a client of Amazon Managed Workflows for Apache Airflow (MWAA).
pub fn mwaa(shared: &SdkConfig) -> aws_sdk_mwaa::Client {
    let mut config = aws_sdk_mwaa::config::Builder::from(shared);
    if let Some(endpoint) = shared.endpoint_url() {
        config = config.interceptor(KeepHost { endpoint: endpoint.to_string() });
    }
    aws_sdk_mwaa::Client::from_conf(config.build())
}

/// Restores the host of a custom endpoint. The SDK sends MWAA calls to `api.<host>`, which does
/// not resolve for such an endpoint.
#[derive(Debug)]
struct KeepHost {
    endpoint: String,
}

impl aws_sdk_mwaa::config::Intercept for KeepHost {
    fn name(&self) -> &'static str {
        "keep the host of the endpoint"
    }

    fn modify_before_signing(
        &self,
        context: &mut aws_sdk_mwaa::config::interceptors::BeforeTransmitInterceptorContextMut<'_>,
        _: &aws_sdk_mwaa::config::RuntimeComponents,
        _: &mut aws_sdk_mwaa::config::ConfigBag,
    ) -> Result<(), aws_sdk_mwaa::error::BoxError> {
        let request = context.request_mut();
        // Not parsed as a URL, because `api.127.0.0.1` is not a valid host.
        let after_scheme = request.uri().split_once("://").map_or(request.uri(), |(_, rest)| rest);
        let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
        let uri = format!("{}{path}", self.endpoint.trim_end_matches('/'));
        request.set_uri(uri)?;
        Ok(())
    }
}

/// Returns the API key that the gateway requires: the key from the environment, or the key of the
/// provisioned API.
///
/// # Errors
/// The key cannot be read from API Gateway.
pub async fn gateway_api_key(config: &Config) -> Result<Option<SecretString>> {
    if config.secrets.gateway_api_key.is_some()
        || config.target == Target::Local
        || config.api.auth != ApiAuth::Key
    {
        return Ok(config.secrets.gateway_api_key.clone());
    }
    // A configured address is not the address of the provisioned API.
    let key_id = if config.gateway.url.is_empty() {
        Outputs::read(&config.data_dir)?.api_key_id
    } else {
        None
    };
    let Some(id) = key_id else { return Ok(None) };
    let client = aws_sdk_apigateway::Client::new(&sdk_config(config).await);
    let response = client
        .get_api_key()
        .api_key(id)
        .include_value(true)
        .send()
        .await
        .call_context("apigateway:GET", "the API key")?;
    Ok(response.value.map(SecretString::from))
}

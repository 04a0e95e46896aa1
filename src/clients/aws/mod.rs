//! AWS SDK clients: one configuration, one way to show their errors.

pub mod call;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::{Credentials, SharedCredentialsProvider};
use secrecy::SecretString;

use crate::base::config::outputs::Outputs;
use crate::base::config::schema::{ApiAuth, Config, Target};
use crate::base::error::Result;
use crate::clients::aws::call::Call;
use crate::clients::aws::call::failed;

/// Configuration that all clients share: region, profile, endpoint, credentials.
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

/// A client of the Kinesis endpoint that the configuration resolves to.
///
/// # Errors
/// Target local and no local stack running.
pub async fn kinesis(config: &Config) -> Result<aws_sdk_kinesis::Client> {
    let url = config.endpoints().kinesis_url()?;
    if config.target == Target::Local {
        // The local endpoint takes any credentials; looking for real ones would cost seconds.
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

/// A client for buckets. Servers of one's own are asked by path: they have no names for buckets.
pub fn s3(shared: &SdkConfig) -> aws_sdk_s3::Client {
    let is_own_server = shared.endpoint_url().is_some();
    let config = aws_sdk_s3::config::Builder::from(shared).force_path_style(is_own_server);
    aws_sdk_s3::Client::from_conf(config.build())
}

/// A client for Managed Airflow.
pub fn mwaa(shared: &SdkConfig) -> aws_sdk_mwaa::Client {
    let mut config = aws_sdk_mwaa::config::Builder::from(shared);
    if let Some(endpoint) = shared.endpoint_url() {
        config = config.interceptor(KeepHost {
            endpoint: endpoint.to_string(),
        });
    }
    aws_sdk_mwaa::Client::from_conf(config.build())
}

/// MWAA's calls go to `api.<host>`; a server of one's own has no such name.
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
        // Not parsed as a URL: `api.127.0.0.1` is none.
        let after_scheme = request
            .uri()
            .split_once("://")
            .map_or(request.uri(), |(_, rest)| rest);
        let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
        let kept = format!("{}{path}", self.endpoint.trim_end_matches('/'));
        request.set_uri(kept)?;
        Ok(())
    }
}

/// The API key that the gateway asks for: the environment's, or that of the API that was provisioned.
///
/// # Errors
/// The key cannot be asked for.
pub async fn gateway_api_key(config: &Config) -> Result<Option<SecretString>> {
    if config.secrets.gateway_api_key.is_some()
        || config.target == Target::Local
        || config.api.auth != ApiAuth::Key
    {
        return Ok(config.secrets.gateway_api_key.clone());
    }
    // A gateway named by its address is not the one that was provisioned.
    let known = if config.gateway.url.is_empty() {
        Outputs::read(&config.data_dir)?.api_key_id
    } else {
        None
    };
    let Some(id) = known else { return Ok(None) };
    let client = aws_sdk_apigateway::Client::new(&sdk_config(config).await);
    let found = client
        .get_api_key()
        .api_key(id)
        .include_value(true)
        .send()
        .await;
    let found = found.map_err(|error| failed(Call("apigateway:GET", "the API key"), &error))?;
    Ok(found.value.map(SecretString::from))
}

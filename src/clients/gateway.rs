//! Client of the gateway, with authentication by API key or AWS signature.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::config::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::redirect::Policy;
use reqwest::{Method, Response};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::base::config::schema::{ApiAuth, Config, Target};
use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::http::{may_receive_secrets, root_cause};

/// Content type and body of a request.
pub type Content<'a> = (&'a str, &'a str);

/// A client of the gateway that the configuration resolves to.
pub struct GatewayClient {
    http: reqwest::Client,
    url: String,
    api_key: Option<SecretString>,
    signer: Option<Signer>,
}

/// Signs requests for API Gateway with AWS credentials.
struct Signer {
    credentials: SharedCredentialsProvider,
    region: String,
}

impl GatewayClient {
    /// Creates a client that keeps at most `max_idle` idle connections open.
    ///
    /// # Errors
    /// No gateway is configured; no local stack is running; requests must be signed and no AWS
    /// credentials exist; a key or a signature would be sent unencrypted to another machine.
    pub async fn new(config: &Config, timeout: Duration, max_idle: usize) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .pool_max_idle_per_host(max_idle)
            .tcp_nodelay(true)
            // The library would send the key to whatever host a response names.
            .redirect(Policy::none());
        let http = http.build().context(|| "cannot create an HTTP client")?;
        let url = config.endpoints().gateway_url()?;
        let signer = if config.target == Target::Aws && config.api.auth == ApiAuth::Iam {
            let shared = crate::clients::aws::sdk_config(config).await;
            let credentials = shared.credentials_provider().ok_or_else(|| {
                Error::failed("cannot sign requests: no AWS credentials found")
                    .hint("set AWS_PROFILE, `aws.profile` or AWS_ACCESS_KEY_ID")
            })?;
            Some(Signer { credentials, region: config.aws.region.clone() })
        } else {
            None
        };
        let api_key = crate::clients::aws::gateway_api_key(config).await?;
        if api_key.is_some() {
            check_encryption("the API key", &url)?;
        }
        if signer.is_some() {
            check_encryption("signed requests", &url)?;
        }
        Ok(Self { http, url, api_key, signer })
    }

    /// Returns the address of the gateway, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a request and returns the response, whatever its status.
    ///
    /// # Errors
    /// The gateway cannot be reached or redirects to another address; the request cannot be
    /// signed.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content: Option<Content<'_>>,
    ) -> Result<Response> {
        let url = format!("{}{path}", self.url);
        let mut headers = Vec::new();
        if let Some((content_type, _)) = content {
            headers.push(("content-type".to_string(), content_type.to_string()));
        }
        if let Some(key) = &self.api_key {
            headers.push(("x-api-key".to_string(), key.expose_secret().to_string()));
        }
        let body = content.map(|(_, body)| body).unwrap_or_default();
        if let Some(signer) = &self.signer {
            headers.extend(signer.signature_headers(&method, &url, &headers, body).await?);
        }
        let mut request = self.http.request(method, &url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let unreachable = || format!("cannot reach the gateway at {}", self.url);
        let response = request.body(body.to_string()).send().await.map_err(|error| {
            Error::failed(unreachable())
                .with_source(root_cause(error))
                .hint("check that the gateway is up; `pinpipe local` starts the local one")
                .retryable(true)
        })?;
        if response.status().is_redirection() {
            let status = response.status().as_u16();
            let location = response.headers().get("location").and_then(|url| url.to_str().ok());
            let other = location.unwrap_or("another address");
            return Err(Error::failed(format!(
                "the gateway at {} redirects to {other} (HTTP {status})",
                self.url
            ))
            .hint("set `gateway.url` to the address of the gateway itself"));
        }
        Ok(response)
    }
}

/// Checks that a key or a signature may be sent to the gateway.
///
/// # Errors
/// The connection is not encrypted and leaves this machine.
fn check_encryption(secret: &str, url: &str) -> Result<()> {
    if Url::parse(url).is_ok_and(|url| may_receive_secrets(&url)) {
        return Ok(());
    }
    Err(Error::usage(format!("cannot send {secret} to `{url}`: the connection is not encrypted"))
        .hint("use an address that starts with https://"))
}

impl Signer {
    /// Returns the headers that sign a request with AWS Signature Version 4.
    async fn signature_headers(
        &self,
        method: &Method,
        url: &str,
        headers: &[(String, String)],
        body: &str,
    ) -> Result<Vec<(String, String)>> {
        let identity = self
            .credentials
            .provide_credentials()
            .await
            .context(|| "cannot sign requests: no usable AWS credentials")?
            .into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("execute-api")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .context(|| "cannot sign a request")?
            .into();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let request = SignableRequest::new(
            method.as_str(),
            url,
            headers,
            SignableBody::Bytes(body.as_bytes()),
        );
        let signed = sign(request.context(|| "cannot sign a request")?, &params)
            .context(|| "cannot sign a request")?;
        let (instructions, _) = signed.into_parts();
        Ok(instructions
            .headers()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect())
    }
}

//! A client of the gateway: with the API key, or signed, as the API asks for it.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::config::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::{Method, Response};
use secrecy::{ExposeSecret, SecretString};

use crate::base::config::schema::{ApiAuth, Config, Target};
use crate::base::error::{Error, ErrorContext, Result};

/// What is sent with a request: its content type and its body.
pub type Content<'a> = (&'a str, &'a str);

/// Speaks to the gateway that the configuration resolves to.
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
    /// `idle`: most connections kept open.
    ///
    /// # Errors
    /// No gateway is known; no local stack is running; no credentials where requests are to be signed.
    pub async fn new(config: &Config, timeout: Duration, idle: usize) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .pool_max_idle_per_host(idle)
            .tcp_nodelay(true);
        let http = http.build().context(|| "cannot set up an HTTP client")?;
        let url = config.endpoints().gateway_url()?;
        let signer = if config.target == Target::Aws && config.api.auth == ApiAuth::Iam {
            let shared = crate::clients::aws::sdk_config(config).await;
            let credentials = shared.credentials_provider().ok_or_else(|| {
                Error::failed("no AWS credentials to sign requests with")
                    .hint("set AWS_PROFILE, `aws.profile` or AWS_ACCESS_KEY_ID")
            })?;
            Some(Signer {
                credentials,
                region: config.aws.region.clone(),
            })
        } else {
            None
        };
        Ok(Self {
            http,
            url,
            api_key: crate::clients::aws::gateway_api_key(config).await?,
            signer,
        })
    }

    /// Where the gateway is, without a final slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a request and returns whatever answer came.
    ///
    /// # Errors
    /// No answer came, or the request cannot be signed.
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
            headers.extend(signer.signed(&method, &url, &headers, body).await?);
        }
        let mut request = self.http.request(method, &url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let unreachable = || format!("cannot reach the gateway at {}", self.url);
        request.body(body.to_string()).send().await.map_err(|error| {
            Error::failed(unreachable())
                .with_source(error.without_url())
                .hint("is it up? `pinpipe local` starts the local one; `pinpipe doctor` tests every connection")
                .retryable(true)
        })
    }
}

impl Signer {
    /// The headers that sign a request, by Signature Version 4.
    async fn signed(
        &self,
        method: &Method,
        url: &str,
        headers: &[(String, String)],
        body: &str,
    ) -> Result<Vec<(String, String)>> {
        let found = self.credentials.provide_credentials().await;
        let identity = found
            .context(|| "no AWS credentials to sign requests with")?
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
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
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

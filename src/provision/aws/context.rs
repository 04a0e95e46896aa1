//! The AWS account of the pipeline: service clients, state, tags and waiting.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::output::progress::Progress;
use crate::clients::aws::call::{CallContext, CreateError};
use crate::clients::aws::sdk_config;
use crate::provision::resource::Difference;
use crate::provision::state::State;
use crate::provision::state::backend::{StateBackend, file_path};

/// Tag with the `id` of the pipeline that a resource belongs to.
pub const TAG_ID: &str = "pinpipe:id";
/// Tag with the key of the resource within its pipeline.
pub const TAG_RESOURCE: &str = "pinpipe:resource";

/// Maximum number of attempts of a create call that AWS throttles or that fails on the server.
const MAX_CREATE_ATTEMPTS: u32 = 8;

/// Clients, configuration and state that all resources on AWS share.
pub struct Account {
    pub config: Config,
    /// AWS account id: twelve digits.
    pub id: String,
    /// Partition of the ARNs: `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    pub ec2: aws_sdk_ec2::Client,
    /// Client without retries, for calls that would create a second resource if repeated.
    pub ec2_once: aws_sdk_ec2::Client,
    pub iam: aws_sdk_iam::Client,
    pub s3: aws_sdk_s3::Client,
    pub msk: aws_sdk_kafka::Client,
    pub connect: aws_sdk_kafkaconnect::Client,
    pub kinesis: aws_sdk_kinesis::Client,
    pub api: aws_sdk_apigateway::Client,
    /// Client without retries, for the same reason as `ec2_once`.
    pub api_once: aws_sdk_apigateway::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub mwaa: aws_sdk_mwaa::Client,
    pub state: State,
    endpoint: Option<String>,
    /// Cancelled by Ctrl-C. Afterwards, no change starts, and every wait ends.
    pub stop: CancellationToken,
    pub progress: Progress,
    /// Keys of the buckets that may be deleted with their objects.
    pub may_lose_data: RefCell<BTreeSet<String>>,
    /// Whether brokers are reachable from this machine; set by the first use.
    pub brokers_reached: OnceCell<bool>,
    /// Address ranges from which API Gateway sends requests; set by the first use.
    pub gateway_ranges: OnceCell<Vec<String>>,
    /// Number of partitions by topic, as read on the client machine; cleared when a topic changes.
    pub described_topics: Mutex<Option<BTreeMap<String, i32>>>,
}

impl Account {
    /// Creates the clients, reads the caller's identity and opens the state.
    ///
    /// # Errors
    /// No valid credentials; the state cannot be read or belongs to another pipeline, account or
    /// region.
    pub async fn open(
        config: &Config,
        backend: StateBackend,
        is_written: bool,
        progress: Progress,
        stop: CancellationToken,
    ) -> Result<Self> {
        use aws_config::retry::RetryConfig;
        let shared = sdk_config(config).await;
        let sts = aws_sdk_sts::Client::new(&shared);
        let response = sts.get_caller_identity().send().await;
        let identity = response.call_context("sts:GetCallerIdentity", "these credentials")?;
        let id = identity.account().unwrap_or_default().to_string();
        let partition =
            identity.arn().and_then(|arn| arn.split(':').nth(1)).unwrap_or("aws").to_string();
        let state = State::open(backend, is_written, &config.id, &id, &config.aws.region).await?;
        let without_retries = shared.to_builder().retry_config(RetryConfig::disabled()).build();
        Ok(Self {
            ec2: aws_sdk_ec2::Client::new(&shared),
            ec2_once: aws_sdk_ec2::Client::new(&without_retries),
            iam: aws_sdk_iam::Client::new(&shared),
            s3: crate::clients::aws::s3(&shared),
            msk: aws_sdk_kafka::Client::new(&shared),
            connect: aws_sdk_kafkaconnect::Client::new(&shared),
            kinesis: crate::clients::aws::kinesis(config).await?,
            api: aws_sdk_apigateway::Client::new(&shared),
            api_once: aws_sdk_apigateway::Client::new(&without_retries),
            ssm: aws_sdk_ssm::Client::new(&shared),
            mwaa: crate::clients::aws::mwaa(&shared),
            config: config.clone(),
            endpoint: shared.endpoint_url().map(String::from),
            id,
            partition,
            state,
            stop,
            progress,
            may_lose_data: RefCell::default(),
            brokers_reached: OnceCell::new(),
            gateway_ranges: OnceCell::new(),
            described_topics: Mutex::new(None),
        })
    }

    /// Returns the backend that stores the state of this configuration.
    ///
    /// # Errors
    /// `provision.state` is not a valid location.
    pub async fn place(config: &Config) -> Result<StateBackend> {
        if config.provision.state.is_empty() {
            return Ok(StateBackend::File(file_path(&config.data_dir)));
        }
        StateBackend::object(
            crate::clients::aws::s3(&sdk_config(config).await),
            &config.provision.state,
        )
    }

    /// Custom endpoint for all AWS services, if one is configured.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Returns the name of a resource of this pipeline: `<id>-<suffix>`.
    pub fn named(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.config.id)
    }

    /// Returns the names to look a resource up by: first the name in the state, if it differs from
    /// the configured name, then the configured name.
    pub async fn names(&self, key: &str, name: &str) -> Vec<String> {
        let recorded_name = self
            .state
            .entry(key)
            .await
            .map(|entry| entry.name)
            .filter(|recorded_name| recorded_name != name);
        recorded_name.into_iter().chain([name.to_string()]).collect()
    }

    /// Finds a resource by the names that [`names`](Self::names) returns, in that order.
    ///
    /// # Errors
    /// `find` fails.
    pub async fn find_by_names<T, Found>(
        &self,
        key: &str,
        name: &str,
        find: impl Fn(String) -> Found,
    ) -> Result<Option<T>>
    where
        Found: Future<Output = Result<Option<T>>>,
    {
        for name in self.names(key, name).await {
            if let Some(found) = find(name).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether the state has no entry for `key`. In that case the resource may exist under an
    /// earlier name, so it is searched for by its tags.
    pub async fn is_unrecorded(&self, key: &str) -> bool {
        self.state.entry(key).await.is_none()
    }

    /// Returns the desired tags of a resource: pipeline, key and the tags of the configuration.
    pub fn tags(&self, key: &str) -> Vec<(String, String)> {
        let mut tags = vec![
            (TAG_ID.to_string(), self.config.id.clone()),
            (TAG_RESOURCE.to_string(), key.to_string()),
        ];
        tags.extend(self.config.aws.tags.iter().map(|(key, value)| (key.clone(), value.clone())));
        tags
    }

    /// Whether these are the tags of a resource that pinpipe created for this pipeline.
    pub fn is_managed<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
        tags.into_iter().any(|(key, value)| key == TAG_ID && value == self.config.id)
    }

    /// Whether these are the tags of the resource with this key in this pipeline.
    pub fn is_tagged_as<'a>(
        &self,
        key: &str,
        tags: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    ) -> bool {
        self.is_managed(tags.clone())
            && tags.into_iter().any(|(tag, value)| tag == TAG_RESOURCE && value == key)
    }

    /// Describes the tags that are missing or have another value. Additional tags are ignored,
    /// because pinpipe does not manage them.
    pub fn tag_differences<'a>(
        &self,
        key: &str,
        current: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Vec<Difference> {
        let current: BTreeMap<&str, &str> = current.into_iter().collect();
        let desired = self.tags(key);
        let differing = desired
            .iter()
            .filter(|(key, value)| current.get(key.as_str()) != Some(&value.as_str()));
        differing
            .map(|(key, value)| match current.get(key.as_str()) {
                Some(other) => Difference::field(format!("tag `{key}`"), other, value),
                None => format!("tag `{key}` is missing").into(),
            })
            .collect()
    }

    /// Creates a resource that AWS would create twice if the call were repeated: when a failed
    /// call may have succeeded on the server, searches for the resource before the next attempt.
    ///
    /// # Errors
    /// The call fails with an error that is not retryable; all attempts fail; Ctrl-C.
    pub async fn create_idempotently<T, Found, Created>(
        &self,
        find: impl Fn() -> Found,
        create: impl Fn() -> Created,
    ) -> Result<T>
    where
        Found: Future<Output = Result<Option<T>>>,
        Created: Future<Output = Result<T, CreateError>>,
    {
        let mut attempt = 0;
        loop {
            let failure = match create().await {
                Ok(created) => return Ok(created),
                Err(failure) => failure,
            };
            attempt += 1;
            if !failure.error.is_retryable()
                || attempt >= MAX_CREATE_ATTEMPTS
                || self.stop.is_cancelled()
            {
                return Err(failure.error);
            }
            tracing::info!(error = %failure.error, attempt, "retrying");
            if failure.outcome_unknown {
                let began = Instant::now();
                while began.elapsed() < self.consistency_timeout() {
                    if let Some(found) = find().await? {
                        return Ok(found);
                    }
                    self.pause(self.consistency_timeout() / 8).await;
                }
            } else {
                self.pause(self.consistency_timeout() / 8 * attempt).await;
            }
        }
    }

    /// Retries a call that fails because AWS does not see a new resource yet.
    ///
    /// # Errors
    /// The call fails with another error; it still fails after four times
    /// [`consistency_timeout`](Self::consistency_timeout); Ctrl-C.
    pub async fn retry_until_visible<T, Called>(
        &self,
        is_unseen: impl Fn(&Error) -> bool,
        call: impl Fn() -> Called,
    ) -> Result<T>
    where
        Called: Future<Output = Result<T>>,
    {
        let began = Instant::now();
        loop {
            match call().await {
                Err(error)
                    if is_unseen(&error)
                        && began.elapsed() < self.consistency_timeout() * 4
                        && !self.stop.is_cancelled() =>
                {
                    tracing::info!(%error, "not visible yet, retrying");
                    self.pause(self.consistency_timeout() / 8).await;
                }
                result => return result,
            }
        }
    }

    /// Polls `check` until it returns `None`, and shows the status that it returns until then.
    /// The interval grows to `provision.poll_interval_ms`.
    ///
    /// # Errors
    /// A check fails; Ctrl-C; the wait exceeds `provision.operation_timeout_minutes`.
    pub async fn wait_until<Checked>(
        &self,
        resource: &str,
        check: impl Fn() -> Checked,
    ) -> Result<()>
    where
        Checked: Future<Output = Result<Option<String>>>,
    {
        let began = Instant::now();
        let timeout = Duration::from_secs(self.config.provision.operation_timeout_minutes * 60);
        // Quick operations finish after a second or two, so the first pauses are short.
        let max_pause = Duration::from_millis(self.config.provision.poll_interval_ms);
        let mut pause = max_pause / 8;
        loop {
            let Some(state) = check().await? else {
                return Ok(());
            };
            let elapsed = began.elapsed();
            tracing::info!(resource, state, elapsed_s = elapsed.as_secs(), "waiting");
            self.progress.say(format!("waiting for {resource}: {state} ({})", time_text(elapsed)));
            if elapsed > timeout {
                return Err(Error::failed(format!(
                    "{resource} is still {state} after {}",
                    time_text(elapsed)
                ))
                .hint(
                    "AWS continues the operation: re-run the command to wait again \
                     (`provision.operation_timeout_minutes` sets the limit)",
                ));
            }
            self.pause(pause).await;
            if self.stop.is_cancelled() {
                return Err(self.interrupted(&format!("{resource} is still {state}")));
            }
            pause = (pause * 2).min(max_pause);
        }
    }

    /// Returns the error of a run that Ctrl-C interrupts; `progress` describes the unfinished work.
    pub fn interrupted(&self, progress: &str) -> Error {
        Error::interrupted(format!("interrupted: {progress}"))
            .hint("created resources are kept and recorded; re-run the command to resume")
    }

    /// Time after which AWS shows a new resource to all readers
    /// (`provision.consistency_timeout_ms`).
    pub fn consistency_timeout(&self) -> Duration {
        Duration::from_millis(self.config.provision.consistency_timeout_ms)
    }

    /// Sleeps for `duration`, or until Ctrl-C.
    pub async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Formats a duration: `42 s`, `12 min 5 s`.
fn time_text(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

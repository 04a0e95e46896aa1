//! The account that resources are made in: clients, state, tags, patience.

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
use crate::clients::aws::call::{Call, CreateError, failed};
use crate::clients::aws::sdk_config;
use crate::provision::state::State;
use crate::provision::state::backend::{StateBackend, file_path};

/// Tag that says which pipeline a resource belongs to.
pub const TAG_ID: &str = "pinpipe:id";
/// Tag that says which of its resources it is.
pub const TAG_RESOURCE: &str = "pinpipe:resource";

/// How often a call that makes something is tried when AWS is busy or broken.
const MAKE_ATTEMPTS: u32 = 8;

/// Everything that resources on AWS share.
pub struct Account {
    pub config: Config,
    /// Twelve digits.
    pub id: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    pub ec2: aws_sdk_ec2::Client,
    /// Calls that make a second one when repeated go through clients that repeat nothing.
    pub ec2_once: aws_sdk_ec2::Client,
    pub iam: aws_sdk_iam::Client,
    pub s3: aws_sdk_s3::Client,
    pub msk: aws_sdk_kafka::Client,
    pub connect: aws_sdk_kafkaconnect::Client,
    pub kinesis: aws_sdk_kinesis::Client,
    pub api: aws_sdk_apigateway::Client,
    pub api_once: aws_sdk_apigateway::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub mwaa: aws_sdk_mwaa::Client,
    pub state: State,
    endpoint: Option<String>,
    /// Set by Ctrl-C: nothing new is begun, waits end.
    pub stop: CancellationToken,
    pub progress: Progress,
    /// Keys of the buckets that may be removed with what they hold.
    pub may_lose_data: RefCell<BTreeSet<String>>,
    /// Whether brokers can be reached from here, once somebody has tried.
    pub brokers_reached: OnceCell<bool>,
    /// Where API Gateway calls from, once somebody has asked.
    pub gateway_ranges: OnceCell<Vec<String>>,
    /// What the client machine said of the topics, until one changes.
    pub described_topics: Mutex<Option<BTreeMap<String, i32>>>,
}

impl Account {
    /// Connects, asks who we are, and reads the state.
    ///
    /// # Errors
    /// No usable credentials; a state that cannot be read or is another's.
    pub async fn open(
        config: &Config,
        place: StateBackend,
        is_written: bool,
        progress: Progress,
        stop: CancellationToken,
    ) -> Result<Self> {
        use aws_config::retry::RetryConfig;
        let shared = sdk_config(config).await;
        let sts = aws_sdk_sts::Client::new(&shared);
        let identity = sts.get_caller_identity().send().await;
        let identity = identity
            .map_err(|error| failed(Call("sts:GetCallerIdentity", "these credentials"), &error))?;
        let id = identity.account().unwrap_or_default().to_string();
        let partition = identity
            .arn()
            .and_then(|arn| arn.split(':').nth(1))
            .unwrap_or("aws")
            .to_string();
        let state = State::open(place, is_written, &config.id, &id, &config.aws.region).await?;
        let once = shared
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .build();
        Ok(Self {
            ec2: aws_sdk_ec2::Client::new(&shared),
            ec2_once: aws_sdk_ec2::Client::new(&once),
            iam: aws_sdk_iam::Client::new(&shared),
            s3: crate::clients::aws::s3(&shared),
            msk: aws_sdk_kafka::Client::new(&shared),
            connect: aws_sdk_kafkaconnect::Client::new(&shared),
            kinesis: crate::clients::aws::kinesis(config).await?,
            api: aws_sdk_apigateway::Client::new(&shared),
            api_once: aws_sdk_apigateway::Client::new(&once),
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

    /// Where the state of this configuration lies.
    ///
    /// # Errors
    /// `provision.state` is no location.
    pub async fn place(config: &Config) -> Result<StateBackend> {
        if config.provision.state.is_empty() {
            return Ok(StateBackend::File(file_path(&config.data_dir)));
        }
        StateBackend::object(
            crate::clients::aws::s3(&sdk_config(config).await),
            &config.provision.state,
        )
    }

    /// The endpoint that stands for all of AWS, where one is configured.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Name of something of this pipeline: `<id>-<suffix>`.
    pub fn named(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.config.id)
    }

    /// Names that a resource may be found under: the one it was made under, where the
    /// configuration has given it another one since, and then the one of now.
    pub async fn names(&self, key: &str, name: &str) -> Vec<String> {
        let made_under = self
            .state
            .entry(key)
            .await
            .map(|entry| entry.name)
            .filter(|made_under| made_under != name);
        made_under.into_iter().chain([name.to_string()]).collect()
    }

    /// Finds something by its name: the one it was made under, where the configuration has
    /// given it another one since, or the one of now.
    ///
    /// # Errors
    /// `find` fails.
    pub async fn found_under<T, Found>(
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

    /// The state knows nothing of a resource: was it made under a name that only its tags tell?
    pub async fn is_forgotten(&self, key: &str) -> bool {
        self.state.entry(key).await.is_none()
    }

    /// The tags that a resource carries.
    pub fn tags(&self, key: &str) -> Vec<(String, String)> {
        let mut tags = vec![
            (TAG_ID.to_string(), self.config.id.clone()),
            (TAG_RESOURCE.to_string(), key.to_string()),
        ];
        tags.extend(
            self.config
                .aws
                .tags
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        tags
    }

    /// Whether these tags say that pinpipe made it for this pipeline.
    pub fn is_ours<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
        tags.into_iter()
            .any(|(key, value)| key == TAG_ID && value == self.config.id)
    }

    /// Whether these tags say that it is this very resource of this pipeline.
    pub fn is_tagged_as<'a>(
        &self,
        key: &str,
        tags: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    ) -> bool {
        self.is_ours(tags.clone())
            && tags
                .into_iter()
                .any(|(tag, value)| tag == TAG_RESOURCE && value == key)
    }

    /// Wanted tags that are missing or have another value. Tags of others are left alone.
    pub fn tag_differences<'a>(
        &self,
        key: &str,
        found: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Vec<String> {
        let found: std::collections::BTreeMap<&str, &str> = found.into_iter().collect();
        let wanted = self.tags(key);
        let differing = wanted
            .iter()
            .filter(|(key, value)| found.get(key.as_str()) != Some(&value.as_str()));
        differing
            .map(|(key, value)| match found.get(key.as_str()) {
                Some(other) => format!("tag `{key}` is `{other}`, not `{value}`"),
                None => format!("tag `{key}` is missing"),
            })
            .collect()
    }

    /// Makes something that AWS would make twice if it were asked twice: after a failure
    /// that may have had its effect, it is looked for before it is made again.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn create_idempotently<T, Found, Made>(
        &self,
        find: impl Fn() -> Found,
        make: impl Fn() -> Made,
    ) -> Result<T>
    where
        Found: Future<Output = Result<Option<T>>>,
        Made: Future<Output = Result<T, CreateError>>,
    {
        let mut attempt = 0;
        loop {
            let unmade = match make().await {
                Ok(made) => return Ok(made),
                Err(unmade) => unmade,
            };
            attempt += 1;
            if !unmade.error.is_retryable() || attempt >= MAKE_ATTEMPTS || self.stop.is_cancelled()
            {
                return Err(unmade.error);
            }
            tracing::info!(error = %unmade.error, attempt, "trying again");
            if unmade.outcome_unknown {
                let began = Instant::now();
                while began.elapsed() < self.patience() {
                    if let Some(found) = find().await? {
                        return Ok(found);
                    }
                    self.pause(self.patience() / 8).await;
                }
            } else {
                self.pause(self.patience() / 8 * attempt).await;
            }
        }
    }

    /// Repeats a call while AWS does not see yet what was made a moment ago.
    ///
    /// # Errors
    /// Any other failure at once; the same failure after a minute.
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
                        && began.elapsed() < self.patience() * 4
                        && !self.stop.is_cancelled() =>
                {
                    tracing::info!(%error, "not seen yet, trying again");
                    self.pause(self.patience() / 8).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Asks again and again until `check` says that it is done (`None`), showing what it says meanwhile.
    ///
    /// # Errors
    /// A check fails; Ctrl-C; it takes longer than `provision.wait_minutes`.
    pub async fn wait_until<Checked>(&self, what: &str, check: impl Fn() -> Checked) -> Result<()>
    where
        Checked: Future<Output = Result<Option<String>>>,
    {
        let began = Instant::now();
        let longest = Duration::from_secs(self.config.provision.wait_minutes * 60);
        // Quick things are done after a second or two: the pause grows to its full length.
        let full = Duration::from_millis(self.config.provision.poll_ms);
        let mut pause = full / 8;
        loop {
            let Some(state) = check().await? else {
                return Ok(());
            };
            let elapsed = began.elapsed();
            tracing::info!(what, state, elapsed_s = elapsed.as_secs(), "waiting");
            self.progress
                .say(format!("{what} is {state} since {}", time_text(elapsed)));
            if elapsed > longest {
                return Err(Error::failed(format!("{what} is still {state} after {}", time_text(elapsed)))
                    .hint("it goes on at AWS: the same command waits for it again (`provision.wait_minutes` says how long)"));
            }
            self.pause(pause).await;
            if self.stop.is_cancelled() {
                return Err(self.stopped(&format!("{what} is still {state}")));
            }
            pause = (pause * 2).min(full);
        }
    }

    /// The error of a run that Ctrl-C ends.
    pub fn stopped(&self, what: &str) -> Error {
        Error::interrupted(format!("interrupted: {what}"))
            .hint("created resources are kept and recorded; re-run the command to resume")
    }

    /// How long AWS may take to see what was made a moment ago.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.config.provision.patience_ms)
    }

    /// Sleeps, but not beyond Ctrl-C.
    pub async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// `42 s`, `12 min 5 s`.
fn time_text(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

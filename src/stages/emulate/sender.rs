//! Sending records to the gateway, again where that may help.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::gateway::GatewayClient;
use crate::stages::emulate::dead_letters::DeadLetters;
use crate::stages::emulate::request::{DeliveryOutcome, OutboundRecord, Service, Target};
use crate::stages::emulate::summary::Counts;

/// Shared by everything that sends.
pub struct Sender {
    gateway: GatewayClient,
    backoff: ExponentialBuilder,
    /// When the run's time is up: nothing is tried again after it.
    until: Option<tokio::time::Instant>,
    pub counts: Mutex<Counts>,
    pub dead_letters: Mutex<DeadLetters>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Sender {
    pub async fn new(
        config: &Config,
        concurrency: usize,
        until: Option<tokio::time::Instant>,
    ) -> Result<Self> {
        let timeout = Duration::from_millis(config.emulate.timeout_ms);
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(config.emulate.retries)
            .with_jitter();
        Ok(Self {
            gateway: GatewayClient::new(config, timeout, concurrency * 6).await?,
            backoff,
            until,
            counts: Mutex::new(Counts::new()),
            dead_letters: Mutex::new(DeadLetters::new(&config.data_dir)),
        })
    }

    /// Asks whether a topic or stream is there, before anything is sent.
    ///
    /// # Errors
    /// The gateway cannot be reached or refuses, or does not know the name.
    pub async fn check(&self, target: &Target) -> Result<()> {
        let path = match target.service {
            Service::Kafka => format!("/topics/{}", target.name),
            Service::Kinesis => format!("/streams/{}", target.name),
        };
        let response = self.gateway.send(reqwest::Method::GET, &path, None).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let body: serde_json::Value = response
            .bytes()
            .await
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let message = body
            .get("message")
            .and_then(serde_json::Value::as_str)
            .unwrap_or("no reason was given")
            .to_string();
        let what = if target.service == Service::Kafka {
            "topic"
        } else {
            "stream"
        };
        let hint = match status.as_u16() {
            401 | 403 if message.contains("no routes") => {
                "`pinpipe provision` makes topics, streams, connector and routes"
            }
            401 | 403 => {
                "the API asks for a key: set PINPIPE_GATEWAY_API_KEY in the environment or `.env`"
            }
            _ => "`pinpipe provision` makes topics, streams, connector and routes",
        };
        Err(Error::failed(format!(
            "the gateway at {} does not offer {what} `{}` (HTTP {}: {message})",
            self.gateway.url(),
            target.name,
            status.as_u16()
        ))
        .hint(hint))
    }

    /// Sends records until each is delivered or given up and kept as a dead letter.
    ///
    /// # Errors
    /// Only where a dead letter cannot be written.
    pub async fn deliver(&self, target: &Target, records: Vec<OutboundRecord>) -> Result<()> {
        let mut waiting = records;
        let mut delays = self.backoff.build();
        loop {
            let outcomes = self.send(target, &waiting).await;
            let mut again = Vec::new();
            let mut reason = String::new();
            let mut delivered = 0;
            for (record, outcome) in waiting.into_iter().zip(outcomes) {
                match outcome {
                    DeliveryOutcome::Delivered => delivered += 1,
                    DeliveryOutcome::Retry(why) => {
                        reason = why;
                        again.push(record);
                    }
                    DeliveryOutcome::Permanent(why) => self.give_up(target, &record, &why)?,
                }
            }
            {
                let mut counts = lock(&self.counts);
                counts.delivered += delivered;
                if delivered > 0 {
                    counts.failures_in_a_row = 0;
                }
            }
            if again.is_empty() {
                return Ok(());
            }
            let in_time = |delay: &Duration| {
                self.until
                    .is_none_or(|until| tokio::time::Instant::now() + *delay < until)
            };
            let Some(delay) = delays.next().filter(in_time) else {
                return again
                    .iter()
                    .try_for_each(|record| self.give_up(target, record, &reason));
            };
            tracing::debug!(
                target = target.name,
                records = again.len(),
                reason,
                "sending again"
            );
            lock(&self.counts).retries += again.len() as u64;
            tokio::time::sleep(delay).await;
            waiting = again;
        }
    }

    fn give_up(&self, target: &Target, record: &OutboundRecord, reason: &str) -> Result<()> {
        let mut counts = lock(&self.counts);
        counts.failed += 1;
        counts.failures_in_a_row += 1;
        counts
            .first_reason
            .get_or_insert_with(|| reason.to_string());
        lock(&self.dead_letters).keep(target, record, reason)
    }

    async fn send(&self, target: &Target, records: &[OutboundRecord]) -> Vec<DeliveryOutcome> {
        let (method, path, content_type, body) = target.request(records);
        let started = Instant::now();
        let answered = async {
            let response = self
                .gateway
                .send(method, &path, Some((content_type, &body)))
                .await?;
            let status = response.status().as_u16();
            let body = response
                .bytes()
                .await
                .map_err(reqwest::Error::without_url)
                .context(|| "no answer")?;
            Ok::<_, Error>((status, body))
        };
        match answered.await {
            Ok((status, body)) => {
                lock(&self.counts).answered(started.elapsed());
                target.outcomes(status, &body, records.len())
            }
            Err(error) => {
                vec![DeliveryOutcome::Retry(error.to_string()); records.len()]
            }
        }
    }
}

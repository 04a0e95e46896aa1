//! Delivery of records to the gateway, with retries.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::base::output::Printer;
use crate::base::output::progress::Progress;
use crate::clients::gateway::GatewayClient;
use crate::clients::http::root_cause;
use crate::stages::emulate::dead_letters::DeadLetters;
use crate::stages::emulate::request::{DeliveryOutcome, DeliveryTarget, OutboundRecord, Service};
use crate::stages::emulate::summary::RunCounts;

/// Time after which a delivery in progress is reported as slow.
const QUIET_TIME: Duration = Duration::from_secs(3);
/// Minimum time between two reports of slow deliveries.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Delivers records. All workers share one sender.
pub struct Sender {
    gateway: GatewayClient,
    backoff: ExponentialBuilder,
    max_retries: usize,
    /// End of the run: no retry is attempted later.
    deadline: Option<tokio::time::Instant>,
    pub counts: Mutex<RunCounts>,
    pub dead_letters: Mutex<DeadLetters>,
    printer: Printer,
    progress: Arc<Progress>,
    /// Time of the last report of a slow delivery.
    last_report: Mutex<Option<Instant>>,
}

/// A failed attempt of a delivery.
struct FailedAttempt {
    reason: String,
    /// Number of the retry that follows, from 1.
    retry: usize,
}

/// Locks a mutex. A poisoned mutex is accepted, because the value is consistent after each
/// statement.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Sender {
    pub async fn new(
        config: &Config,
        concurrency: usize,
        deadline: Option<tokio::time::Instant>,
        printer: &Printer,
        progress: Arc<Progress>,
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
            max_retries: config.emulate.retries,
            deadline,
            counts: Mutex::new(RunCounts::new()),
            dead_letters: Mutex::new(DeadLetters::new(&config.data_dir)),
            printer: printer.clone(),
            progress,
            last_report: Mutex::new(None),
        })
    }

    /// Checks that a topic or stream exists, before any record is sent.
    ///
    /// # Errors
    /// The gateway cannot be reached or denies access; the topic or stream does not exist.
    pub async fn check(&self, target: &DeliveryTarget) -> Result<()> {
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
        let resource = if target.service == Service::Kafka { "topic" } else { "stream" };
        let hint = match status.as_u16() {
            401 | 403 if message.contains("no routes") => {
                "run `pinpipe provision` to create topics, streams, connector and routes"
            }
            401 | 403 => {
                "the API requires a key: set PINPIPE_GATEWAY_API_KEY in the environment or `.env`"
            }
            _ => "run `pinpipe provision` to create topics, streams, connector and routes",
        };
        Err(Error::failed(format!(
            "cannot use {resource} `{}` through the gateway at {}: HTTP {}: {message}",
            target.name,
            self.gateway.url(),
            status.as_u16()
        ))
        .hint(hint))
    }

    /// Sends records until each is delivered or stored as a dead letter. Reports a slow delivery.
    ///
    /// # Errors
    /// A dead letter cannot be written.
    pub async fn deliver(
        &self,
        target: &DeliveryTarget,
        records: Vec<OutboundRecord>,
    ) -> Result<()> {
        let last_failure = Mutex::new(None);
        let mut delivery = std::pin::pin!(self.send_until_settled(target, records, &last_failure));
        if let Ok(outcome) = tokio::time::timeout(QUIET_TIME, &mut delivery).await {
            return outcome;
        }
        self.report_delay(lock(&last_failure).as_ref());
        delivery.await
    }

    /// Reports why a delivery is slow, at most once per [`REPORT_INTERVAL`] over all deliveries.
    fn report_delay(&self, last_failure: Option<&FailedAttempt>) {
        let mut last_report = lock(&self.last_report);
        if last_report.is_some_and(|time| time.elapsed() < REPORT_INTERVAL) {
            return;
        }
        *last_report = Some(Instant::now());
        let text = match last_failure {
            Some(FailedAttempt { reason, retry }) => {
                format!("{reason}; retrying ({retry} of {})", self.max_retries)
            }
            None => format!(
                "no response from the gateway at {} for {} s; waiting",
                self.gateway.url(),
                QUIET_TIME.as_secs()
            ),
        };
        self.progress.aside(|| self.printer.warn(text));
    }

    async fn send_until_settled(
        &self,
        target: &DeliveryTarget,
        records: Vec<OutboundRecord>,
        last_failure: &Mutex<Option<FailedAttempt>>,
    ) -> Result<()> {
        let mut pending = records;
        let mut delays = self.backoff.build();
        let mut retry = 0;
        loop {
            let outcomes = self.send(target, &pending).await;
            let mut retries = Vec::new();
            let mut last_reason = String::new();
            let mut delivered = 0;
            for (record, outcome) in pending.into_iter().zip(outcomes) {
                match outcome {
                    DeliveryOutcome::Delivered => delivered += 1,
                    DeliveryOutcome::Retry(reason) => {
                        last_reason = reason;
                        retries.push(record);
                    }
                    DeliveryOutcome::Permanent(reason) => self.give_up(target, &record, &reason)?,
                }
            }
            {
                let mut counts = lock(&self.counts);
                counts.delivered += delivered;
                if delivered > 0 {
                    counts.consecutive_failures = 0;
                }
            }
            if retries.is_empty() {
                return Ok(());
            }
            let before_deadline = |delay: &Duration| {
                self.deadline.is_none_or(|deadline| tokio::time::Instant::now() + *delay < deadline)
            };
            let Some(delay) = delays.next().filter(before_deadline) else {
                return retries
                    .iter()
                    .try_for_each(|record| self.give_up(target, record, &last_reason));
            };
            tracing::debug!(
                target = target.name,
                records = retries.len(),
                reason = last_reason,
                "retrying"
            );
            lock(&self.counts).retries += retries.len() as u64;
            retry += 1;
            *lock(last_failure) = Some(FailedAttempt { reason: last_reason, retry });
            tokio::time::sleep(delay).await;
            pending = retries;
        }
    }

    /// Counts a record as failed and stores it as a dead letter.
    fn give_up(
        &self,
        target: &DeliveryTarget,
        record: &OutboundRecord,
        reason: &str,
    ) -> Result<()> {
        let mut counts = lock(&self.counts);
        counts.failed += 1;
        counts.consecutive_failures += 1;
        counts.first_reason.get_or_insert_with(|| reason.to_string());
        lock(&self.dead_letters).append(target, record, reason)
    }

    async fn send(
        &self,
        target: &DeliveryTarget,
        records: &[OutboundRecord],
    ) -> Vec<DeliveryOutcome> {
        let (method, path, content_type, body) = target.request(records);
        let started = Instant::now();
        let exchange = async {
            let response = self.gateway.send(method, &path, Some((content_type, &body))).await?;
            let status = response.status().as_u16();
            let body = response
                .bytes()
                .await
                .map_err(root_cause)
                .context(|| "cannot read the gateway's response")?;
            Ok::<_, Error>((status, body))
        };
        match exchange.await {
            Ok((status, body)) => {
                lock(&self.counts).record_latency(started.elapsed());
                target.outcomes(status, &body, records.len())
            }
            Err(error) => {
                vec![DeliveryOutcome::Retry(error.to_string()); records.len()]
            }
        }
    }
}

//! Checks of the configuration that its types cannot express: ranges, URLs, names.

use std::fmt::Display;
use std::ops::RangeInclusive;

use secrecy::ExposeSecret;

use crate::base::config::schema::{Config, KafkaAuth, Target, TopicsVia};
use crate::base::config::size::memory_bytes;

/// Whether a rate in posts per second is valid; 0 means unlimited.
pub fn is_rate(rate: f64) -> bool {
    rate == 0.0 || (0.001..=1_000_000.0).contains(&rate)
}

/// Whether a text can be part of the names of topics, streams, tables and buckets.
pub fn is_id(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// Whether a text can be the location of a lake or of tables: a folder or an S3 bucket.
pub fn is_location(text: &str) -> bool {
    text.starts_with("s3://")
        || text.starts_with("file://")
        || !(text.contains("://") || text.starts_with("s3:"))
}

/// Oldest Kafka version (major, minor) that supports the topic operations of MSK.
/// Source: Amazon MSK developer guide, "Topic operations".
const TOPIC_OPERATIONS_SINCE: (u32, u32) = (3, 6);

/// Whether MSK can create topics through its API on clusters of this Kafka version.
pub fn has_topic_operations(kafka_version: &str) -> bool {
    let mut parts = kafka_version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= TOPIC_OPERATIONS_SINCE
}

/// Checks ranges, URLs, names and combinations of keys; adds a message to `problems` for each
/// invalid key.
pub fn check(config: &Config, problems: &mut Vec<String>) {
    let checks = &mut ConfigCheck { problems };
    check_names_and_locations(config, checks);
    check_connections(config, checks);
    check_numbers(config, checks);
    check_aws(config, checks);
    check_schedule(config, checks);
}

/// Collects the problems of a configuration.
struct ConfigCheck<'a> {
    problems: &'a mut Vec<String>,
}

impl ConfigCheck<'_> {
    /// Adds a problem unless the condition holds.
    fn require(&mut self, holds: bool, problem: &str) {
        if !holds {
            self.problems.push(problem.to_string());
        }
    }

    /// Adds a problem about the value of a key unless the condition holds.
    fn expect(&mut self, holds: bool, key: &str, expected: &str, value: impl Display) {
        self.require(holds, &format!("`{key}`: expected {expected}, got `{value}`"));
    }

    fn range<T: PartialOrd + Display>(&mut self, key: &str, value: T, range: RangeInclusive<T>) {
        let expected = format!("{} to {}", range.start(), range.end());
        self.expect(range.contains(&value), key, &expected, value);
    }
}

fn check_names_and_locations(config: &Config, checks: &mut ConfigCheck<'_>) {
    for (key, text) in [
        ("id", config.id.as_str()),
        ("database.url", config.database.url.expose_secret()),
        ("kafka.bootstrap_servers", &config.kafka.bootstrap_servers),
        ("gateway.url", &config.gateway.url),
        ("lake.url", &config.lake.url),
        ("tables.url", &config.tables.url),
    ] {
        checks.require(
            !has_placeholder(text),
            &format!("`{key}` still contains a <placeholder>: replace it, or remove the line"),
        );
    }
    let id = &config.id;
    let is_valid_id = is_id(id) || has_placeholder(id);
    checks.expect(is_valid_id, "id", "1 to 40 letters, digits, `-` or `_`", id);
    let data_dir = &config.data_dir;
    checks.expect(
        !data_dir.as_os_str().is_empty(),
        "data_dir",
        "the path of a folder",
        data_dir.display(),
    );
    for (key, url) in [("lake.url", &config.lake.url), ("tables.url", &config.tables.url)] {
        checks.expect(is_location(url), key, "a folder or s3://BUCKET", url);
    }
    let lake = &config.lake.url;
    checks.expect(
        config.lake_bucket_on_s3().is_none_or(|bucket| !bucket.is_empty() && !bucket.contains('/')),
        "lake.url",
        "s3://BUCKET without a prefix (the connector property `topics.dir` sets the prefix)",
        lake,
    );
    if config.target == Target::Aws {
        let is_bucket_url = lake.is_empty() || lake.starts_with("s3://");
        checks.expect(is_bucket_url, "lake.url", "s3://BUCKET on target aws", lake);
    }
}

fn check_connections(config: &Config, checks: &mut ConfigCheck<'_>) {
    let url = config.database.url.expose_secret();
    let schemes = ["sqlite:", "mysql://", "mariadb://", "postgres://", "postgresql://"];
    let has_valid_scheme = url.is_empty() || schemes.iter().any(|scheme| url.starts_with(scheme));
    // The URL is not shown, because it may contain a password.
    checks.require(
        has_valid_scheme,
        "`database.url`: expected a URL that starts with sqlite:, mysql:// or postgres://",
    );
    for (key, url) in [
        ("gateway.url", &config.gateway.url),
        ("kinesis.endpoint_url", &config.kinesis.endpoint_url),
        ("lake.endpoint_url", &config.lake.endpoint_url),
        ("aws.endpoint_url", &config.aws.endpoint_url),
        ("databricks.host", &config.databricks.host),
    ] {
        // A URL with a password is not shown.
        let has_credentials = url.contains('@');
        checks.require(
            !has_credentials,
            &format!("`{key}`: expected a URL without user name and password"),
        );
        let is_http = url::Url::parse(url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let is_valid = url.is_empty() || has_credentials || is_http;
        checks.expect(is_valid, key, "an http:// or https:// URL", url);
    }
    let host = &config.local.host;
    checks.expect(
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok(),
        "local.host",
        "an IP address or localhost",
        host,
    );
    let needs_user = matches!(config.kafka.auth, KafkaAuth::Plain | KafkaAuth::ScramSha512);
    checks.require(
        !needs_user || !config.kafka.username.is_empty(),
        "this value of `kafka.auth` requires `kafka.username`",
    );
    checks.require(
        !needs_user || config.secrets.kafka_password.is_some(),
        "this value of `kafka.auth` requires PINPIPE_KAFKA_PASSWORD in the environment or `.env`",
    );
}

fn check_numbers(config: &Config, checks: &mut ConfigCheck<'_>) {
    checks.range("database.max_connections", config.database.max_connections, 1..=1000);
    checks.range("topics.partitions", config.topics.partitions, 1..=10_000);
    checks.range("topics.replication_factor", config.topics.replication_factor, 1..=100);
    checks.range("kinesis.shards", config.kinesis.shards, 1..=10_000);
    checks.range("kinesis.retention_hours", config.kinesis.retention_hours, 24..=8760);
    let emulate = &config.emulate;
    checks.range("emulate.concurrency", emulate.concurrency, 1..=10_000);
    // The maximum number of records in one PutRecords call.
    checks.range("emulate.batch", emulate.batch, 1..=500);
    checks.expect(
        is_rate(emulate.rate),
        "emulate.rate",
        "0, or 0.001 to 1000000 posts per second",
        emulate.rate,
    );
    for (key, value) in [
        ("kafka.timeout_ms", config.kafka.timeout_ms),
        ("emulate.timeout_ms", emulate.timeout_ms),
        ("stream.batch_records", config.stream.batch_records as u64),
    ] {
        checks.expect(value > 0, key, "1 or more", value);
    }
    if let Err(error) = memory_bytes(&config.batch.memory) {
        checks.require(false, &format!("`batch.memory`: {error}"));
    }
}

/// Checks the configuration keys that concern AWS.
fn check_aws(config: &Config, checks: &mut ConfigCheck<'_>) {
    checks.range("aws.attempts", config.aws.attempts, 1..=100);
    for key in config.aws.tags.keys() {
        checks.require(
            !key.starts_with("aws:") && !key.starts_with("pinpipe:"),
            &format!("`aws.tags.{key}`: the prefixes `aws:` and `pinpipe:` are reserved"),
        );
    }
    let provision = &config.provision;
    checks.range("provision.max_concurrency", provision.max_concurrency, 1..=64);
    let timeout = provision.operation_timeout_minutes;
    checks.range("provision.operation_timeout_minutes", timeout, 1..=1440);
    checks.range("provision.poll_interval_ms", provision.poll_interval_ms, 1..=600_000);
    checks.range("provision.consistency_timeout_ms", provision.consistency_timeout_ms, 1..=600_000);
    let is_object = |url: &str| {
        url.strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
    };
    let state = &provision.state;
    checks.expect(
        state.is_empty() || is_object(state),
        "provision.state",
        "s3://BUCKET/KEY",
        state,
    );
    check_cluster(config, checks);
    checks.range("connector.mcu", config.connector.mcu, 1..=8);
    checks.range("connector.workers", config.connector.workers, 1..=10);
    let plugin = &config.connector.plugin;
    checks.expect(
        plugin.ends_with(".zip"),
        "connector.plugin",
        "the path or URL of a .zip file",
        plugin,
    );
    let stage = &config.api.stage;
    let is_stage = (1..=128).contains(&stage.len())
        && stage.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    checks.expect(is_stage, "api.stage", "1 to 128 letters, digits, `_` and `-`", stage);
    check_client(config, checks);
    let bucket = config.bucket();
    checks.require(
        config.target != Target::Aws
            || config.lake_bucket_on_s3().is_none_or(|lake| lake == bucket),
        &format!(
            "`s3.bucket.name` is `{bucket}`, but `lake.url` is `{}`: set both to the same bucket, \
             or remove one of them",
            config.lake.url
        ),
    );
    checks.expect(
        config.target != Target::Aws || is_bucket(&bucket),
        "s3.bucket.name",
        "a bucket name of 3 to 63 lower-case letters, digits, `-` and `.` (derived from `id` \
         by default)",
        bucket,
    );
}

fn check_cluster(config: &Config, checks: &mut ConfigCheck<'_>) {
    let brokers = config.cluster.brokers;
    checks.expect(
        config.target == Target::Local
            || (2..=15).contains(&brokers) && (brokers % 2 == 0 || brokers % 3 == 0),
        "cluster.brokers",
        "2 to 15 and a multiple of 2 or 3 (MSK distributes brokers evenly over two or three zones)",
        brokers,
    );
    checks.range("cluster.volume_gib", config.cluster.volume_gib, 1..=16_384);
    let replicas = config.topics.replication_factor;
    checks.expect(
        replicas <= brokers.max(3),
        "topics.replication_factor",
        "at most `cluster.brokers`",
        replicas,
    );
    checks.require(
        config.topics.via != TopicsVia::Msk || has_topic_operations(&config.cluster.kafka_version),
        "`topics.via` \"msk\" requires `cluster.kafka_version` 3.6 or newer; \"auto\" works with \
         every version",
    );
}

/// Checks the section `client`.
fn check_client(config: &Config, checks: &mut ConfigCheck<'_>) {
    let client = &config.client;
    for (key, ranges) in
        [("client.ssh_from", &client.ssh_from), ("client.proxy_from", &client.proxy_from)]
    {
        for range in ranges {
            let is_named = key == "client.proxy_from" && range == "api-gateway";
            let is_valid = is_named || is_range(range);
            checks.expect(is_valid, key, "an IPv4 address range such as 203.0.113.7/32", range);
        }
    }
    // The setup script of the client machine contains these values in single quotes.
    for (key, text) in [
        ("client.kafka_version", &client.kafka_version),
        ("client.scala_version", &client.scala_version),
        ("client.iam_auth_version", &client.iam_auth_version),
        ("client.iam_auth_sha512", &client.iam_auth_sha512),
        ("client.confluent_version", &client.confluent_version),
        ("client.confluent_sha512", &client.confluent_sha512),
    ] {
        let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
        checks.expect(is_plain, key, "letters, digits, `.`, `-` and `_`", text);
    }
}

/// Checks the sections `databricks`, `schedule` and `airflow`.
fn check_schedule(config: &Config, checks: &mut ConfigCheck<'_>) {
    let databricks = &config.databricks;
    checks.range("databricks.timeout_minutes", databricks.timeout_minutes, 1..=10_000);
    checks.range("databricks.poll_interval_ms", databricks.poll_interval_ms, 1..=600_000);
    let folder = &databricks.folder;
    checks.expect(
        folder.is_empty() || folder.starts_with('/') && !folder.starts_with("/Workspace"),
        "databricks.folder",
        "a path such as /Shared/pinpipe",
        folder,
    );
    let schedule = &config.schedule;
    checks.expect(
        chrono::NaiveDate::parse_from_str(&schedule.start_date, "%Y-%m-%d").is_ok(),
        "schedule.start_date",
        "a date such as 2024-01-01",
        &schedule.start_date,
    );
    checks.expect(
        schedule.cron.starts_with('@') || schedule.cron.split_whitespace().count() == 5,
        "schedule.cron",
        "a preset such as @daily, or a cron expression of five fields",
        &schedule.cron,
    );
    checks.range("schedule.retries", schedule.retries, 0..=100);
    checks.require(
        !config.airflow.enabled || config.airflow.subnets.len() == 2,
        "`airflow.subnets`: expected two private subnets with a route through NAT",
    );
}

fn has_placeholder(text: &str) -> bool {
    text.find('<').is_some_and(|start| text[start..].contains('>'))
}

/// Whether a text is an IPv4 address range such as 10.0.0.0/8.
fn is_range(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        address.parse::<std::net::Ipv4Addr>().is_ok()
            && bits.parse::<u8>().is_ok_and(|bits| bits <= 32)
    })
}

/// Whether a text is a valid name of an S3 bucket.
fn is_bucket(name: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (3..=63).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
        && is_end(name.chars().next())
        && is_end(name.chars().last())
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supports_topic_operations_since_kafka_3_6() {
        for (version, expected) in [
            ("2.8.1", false),
            ("3.5.1", false),
            ("3.6.0", true),
            ("3.7.x", true),
            ("4.0.x.kraft", true),
        ] {
            assert_eq!(has_topic_operations(version), expected, "{version}");
        }
    }
}

//! Checks of the configuration that its types cannot express: ranges, addresses, names.

use secrecy::ExposeSecret;

use crate::base::config::schema::{Config, KafkaAuth, Target, TopicsVia};
use crate::base::config::size::memory_bytes;

/// Whether a rate in posts per second is valid; 0 is unlimited.
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

/// Checks ranges, addresses, names and combinations of keys; adds a line to `problems` for each
/// invalid key.
pub fn check(config: &Config, problems: &mut Vec<String>) {
    let mut require = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_string());
        }
    };
    require(
        is_id(&config.id),
        "`id` must be 1 to 40 letters, digits, `-` or `_` (replace the <placeholder>)",
    );
    require(
        !config.data_dir.as_os_str().is_empty(),
        "`data_dir` must be a folder, got an empty value",
    );
    require(
        (1..=1000).contains(&config.database.max_connections),
        "`database.max_connections` must be 1 to 1000",
    );
    require(
        (1..=10_000).contains(&config.topics.partitions),
        "`topics.partitions` must be 1 to 10000",
    );
    require(
        (1..=100).contains(&config.topics.replication_factor),
        "`topics.replication_factor` must be 1 to 100",
    );
    require((1..=10_000).contains(&config.kinesis.shards), "`kinesis.shards` must be 1 to 10000");
    require(
        (24..=8760).contains(&config.kinesis.retention_hours),
        "`kinesis.retention_hours` must be 24 to 8760",
    );
    require(
        (1..=10_000).contains(&config.emulate.concurrency),
        "`emulate.concurrency` must be 1 to 10000",
    );
    require(
        (1..=500).contains(&config.emulate.batch),
        "`emulate.batch` must be 1 to 500 (the maximum of PutRecords)",
    );
    require(
        is_rate(config.emulate.rate),
        "`emulate.rate` must be 0, or 0.001 to 1000000 posts per second",
    );
    require(config.stream.batch_records > 0, "`stream.batch_records` must be 1 or more");
    require(
        config.kafka.timeout_ms > 0 && config.emulate.timeout_ms > 0,
        "`kafka.timeout_ms` and `emulate.timeout_ms` must be 1 or more",
    );
    if let Err(error) = memory_bytes(&config.batch.memory) {
        require(false, &format!("`batch.memory`: {error}"));
    }
    check_aws(config, &mut require);
    let needs_user = matches!(config.kafka.auth, KafkaAuth::Plain | KafkaAuth::ScramSha512);
    require(
        !needs_user || !config.kafka.username.is_empty(),
        "this `kafka.auth` requires `kafka.username`",
    );
    require(
        !needs_user || config.secrets.kafka_password.is_some(),
        "this `kafka.auth` requires PINPIPE_KAFKA_PASSWORD in the environment or `.env`",
    );
    require(
        config.local.host == "localhost" || config.local.host.parse::<std::net::IpAddr>().is_ok(),
        &format!("`local.host` must be an IP address or localhost, got `{}`", config.local.host),
    );
    let url = config.database.url.expose_secret();
    let has_valid_scheme = url.is_empty()
        || ["sqlite:", "mysql:", "mariadb:", "postgres:", "postgresql:"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
    require(has_valid_scheme, "`database.url` must start with sqlite:, mysql: or postgres:");
    for (key, url) in [
        ("gateway.url", &config.gateway.url),
        ("kinesis.endpoint_url", &config.kinesis.endpoint_url),
        ("lake.endpoint_url", &config.lake.endpoint_url),
        ("aws.endpoint_url", &config.aws.endpoint_url),
        ("databricks.host", &config.databricks.host),
    ] {
        let parsed = url::Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let has_credentials = url.contains('@');
        require(
            url.is_empty() || has_credentials || parsed.is_some(),
            &format!("`{key}` must be an http:// or https:// address, got `{url}`"),
        );
        require(!has_credentials, &format!("`{key}` must not contain a user or password"));
    }
    for (key, url) in [("lake.url", &config.lake.url), ("tables.url", &config.tables.url)] {
        require(is_location(url), &format!("`{key}` must be a folder or s3://BUCKET, got `{url}`"));
    }
    require(
        config.lake_bucket_on_s3().is_none_or(|bucket| !bucket.is_empty() && !bucket.contains('/')),
        "`lake.url` must be s3://BUCKET without a folder; `topics.dir` of the sink sets the folder",
    );
    if config.target == Target::Aws {
        require(
            config.lake.url.is_empty() || config.lake.url.starts_with("s3://"),
            "`lake.url` must be s3://BUCKET on target aws",
        );
    }
    for (key, text) in [
        ("database.url", config.database.url.expose_secret()),
        ("kafka.bootstrap_servers", config.kafka.bootstrap_servers.as_str()),
        ("gateway.url", &config.gateway.url),
        ("lake.url", &config.lake.url),
        ("tables.url", &config.tables.url),
    ] {
        let has_placeholder = text.find('<').is_some_and(|start| text[start..].contains('>'));
        require(
            !has_placeholder,
            &format!("`{key}` still contains a <placeholder>: replace it, or remove the line"),
        );
    }
}

/// Checks the keys of resources on AWS and of the schedule.
fn check_aws(config: &Config, require: &mut impl FnMut(bool, &str)) {
    require((1..=100).contains(&config.aws.attempts), "`aws.attempts` must be 1 to 100");
    let provision = &config.provision;
    require(
        (1..=64).contains(&provision.max_concurrency),
        "`provision.max_concurrency` must be 1 to 64",
    );
    require(
        (1..=1440).contains(&provision.operation_timeout_minutes),
        "`provision.operation_timeout_minutes` must be 1 to 1440",
    );
    require(
        (1..=600_000).contains(&provision.poll_interval_ms),
        "`provision.poll_interval_ms` must be 1 to 600000",
    );
    require(
        (1..=600_000).contains(&provision.consistency_timeout_ms),
        "`provision.consistency_timeout_ms` must be 1 to 600000",
    );
    let is_object = |url: &str| {
        url.strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
    };
    require(
        provision.state.is_empty() || is_object(&provision.state),
        "`provision.state` must be s3://BUCKET/KEY",
    );
    let brokers = config.cluster.brokers;
    require(
        config.target == Target::Local
            || (2..=15).contains(&brokers) && (brokers % 2 == 0 || brokers % 3 == 0),
        "`cluster.brokers` must be 2 to 15 and a multiple of 2 or 3: MSK distributes brokers \
         evenly over two or three zones",
    );
    require(
        config.topics.via != TopicsVia::Msk || has_topic_operations(&config.cluster.kafka_version),
        "`topics.via` \"msk\" requires `cluster.kafka_version` 3.6 or newer; \"auto\" works with \
         every version",
    );
    require(
        (1..=16_384).contains(&config.cluster.volume_gib),
        "`cluster.volume_gib` must be 1 to 16384",
    );
    require(
        config.topics.replication_factor <= config.cluster.brokers.max(3),
        "`topics.replication_factor` must be at most `cluster.brokers`",
    );
    require((1..=8).contains(&config.connector.mcu), "`connector.mcu` must be 1 to 8");
    require((1..=10).contains(&config.connector.workers), "`connector.workers` must be 1 to 10");
    require(
        config.connector.plugin.ends_with(".zip"),
        "`connector.plugin` must be a zip: a file or an address",
    );
    let is_stage = |stage: &str| {
        (1..=128).contains(&stage.len())
            && stage.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    require(
        is_stage(&config.api.stage),
        "`api.stage` must be 1 to 128 letters, digits, `_` and `-`",
    );
    for (key, ranges) in [
        ("client.ssh_from", &config.client.ssh_from),
        ("client.proxy_from", &config.client.proxy_from),
    ] {
        for range in ranges {
            let is_named = key == "client.proxy_from" && range == "api-gateway";
            require(
                is_named || is_range(range),
                &format!("`{key}` must contain ranges such as 203.0.113.7/32, got `{range}`"),
            );
        }
    }
    // The setup script of the client machine contains these values in single quotes.
    let client = &config.client;
    for (key, text) in [
        ("client.kafka_version", &client.kafka_version),
        ("client.scala_version", &client.scala_version),
        ("client.iam_auth_version", &client.iam_auth_version),
        ("client.iam_auth_sha512", &client.iam_auth_sha512),
        ("client.confluent_version", &client.confluent_version),
        ("client.confluent_sha512", &client.confluent_sha512),
    ] {
        require(
            text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)),
            &format!("`{key}` must be letters, digits, `.`, `-` and `_`"),
        );
    }
    for key in config.aws.tags.keys() {
        require(
            !key.starts_with("aws:") && !key.starts_with("pinpipe:"),
            &format!("`aws.tags.{key}`: the prefixes `aws:` and `pinpipe:` are reserved"),
        );
    }
    let databricks = &config.databricks;
    require(
        (1..=10_000).contains(&databricks.timeout_minutes),
        "`databricks.timeout_minutes` must be 1 to 10000",
    );
    require(
        (1..=600_000).contains(&databricks.poll_interval_ms),
        "`databricks.poll_interval_ms` must be 1 to 600000",
    );
    require(
        databricks.folder.is_empty()
            || databricks.folder.starts_with('/') && !databricks.folder.starts_with("/Workspace"),
        "`databricks.folder` must begin with `/`, such as /Shared/pinpipe",
    );
    let schedule = &config.schedule;
    require(
        chrono::NaiveDate::parse_from_str(&schedule.start_date, "%Y-%m-%d").is_ok(),
        &format!(
            "`schedule.start_date` must be a day such as 2024-01-01, got `{}`",
            schedule.start_date
        ),
    );
    require(
        schedule.cron.starts_with('@') || schedule.cron.split_whitespace().count() == 5,
        &format!(
            "`schedule.cron` must be a preset such as @daily or five fields, got `{}`",
            schedule.cron
        ),
    );
    require(schedule.retries <= 100, "`schedule.retries` must be 0 to 100");
    let airflow = &config.airflow;
    require(
        !airflow.enabled || airflow.subnets.len() == 2,
        "`airflow.subnets` must name two private subnets with a route through NAT",
    );
    let bucket = config.bucket();
    require(
        config.target != Target::Aws
            || config.lake_bucket_on_s3().is_none_or(|lake| lake == bucket),
        &format!(
            "`s3.bucket.name` is `{bucket}`, but `lake.url` is `{}`: set both to the same bucket, \
             or remove one of them",
            config.lake.url
        ),
    );
    require(
        config.target != Target::Aws || is_bucket(&bucket),
        &format!(
            "`{bucket}` is not a valid bucket name: expected 3 to 63 lower-case letters, digits, \
             `-` and `.` (set by `id` or `s3.bucket.name`)"
        ),
    );
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

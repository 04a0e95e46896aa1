//! What the types of the configuration cannot say: ranges, addresses, names.

use secrecy::ExposeSecret;

use super::{Config, KafkaAuth, Target};

/// Whether posts can be paced like this; 0 stands for no pace at all.
pub fn is_rate(rate: f64) -> bool {
    rate == 0.0 || (0.001..=1_000_000.0).contains(&rate)
}

/// Whether a text can stand in the names of topics, streams, tables and buckets.
pub fn is_id(text: &str) -> bool {
    (1..=40).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// Whether a text can say where a lake or tables lie: a folder, or a bucket of S3.
pub fn is_location(text: &str) -> bool {
    text.starts_with("s3://") || text.starts_with("file://") || !(text.contains("://") || text.starts_with("s3:"))
}

/// What the types cannot say.
pub fn check(config: &Config, problems: &mut Vec<String>) {
    let mut require = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_string());
        }
    };
    require(is_id(&config.id), "`id` must be 1 to 40 letters, digits, `-` or `_` (replace the <placeholder>)");
    require(!config.data_dir.as_os_str().is_empty(), "`data_dir` must name a folder");
    require((1..=1000).contains(&config.database.max_connections), "`database.max_connections` must be 1 to 1000");
    require((1..=10_000).contains(&config.topics.partitions), "`topics.partitions` must be 1 to 10000");
    require((1..=100).contains(&config.topics.replication_factor), "`topics.replication_factor` must be 1 to 100");
    require((1..=10_000).contains(&config.kinesis.shards), "`kinesis.shards` must be 1 to 10000");
    require((24..=8760).contains(&config.kinesis.retention_hours), "`kinesis.retention_hours` must be 24 to 8760");
    require((1..=10_000).contains(&config.emulate.concurrency), "`emulate.concurrency` must be 1 to 10000");
    require((1..=500).contains(&config.emulate.batch), "`emulate.batch` must be 1 to 500 (what PutRecords takes)");
    require(is_rate(config.emulate.rate), "`emulate.rate` must be 0, or 0.001 to 1000000 posts a second");
    require(config.stream.batch_records > 0, "`stream.batch_records` must be 1 or more");
    require(config.kafka.timeout_ms > 0 && config.emulate.timeout_ms > 0, "`timeout_ms` must be 1 or more");
    let needs_user = matches!(config.kafka.auth, KafkaAuth::Plain | KafkaAuth::ScramSha512);
    require(!needs_user || !config.kafka.username.is_empty(), "`kafka.username` is needed for this `kafka.auth`");
    require(
        !needs_user || config.secrets.kafka_password.is_some(),
        "this `kafka.auth` needs PINPIPE_KAFKA_PASSWORD in the environment or `.env`",
    );
    require(
        config.local.host == "localhost" || config.local.host.parse::<std::net::IpAddr>().is_ok(),
        &format!("`local.host` must be an IP address or localhost, not `{}`", config.local.host),
    );
    let url = config.database.url.expose_secret();
    let scheme_fits =
        url.is_empty() || ["sqlite:", "mysql:", "mariadb:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme));
    require(scheme_fits, "`database.url` must start with sqlite:, mysql: or postgres:");
    for (key, url) in [
        ("gateway.url", &config.gateway.url),
        ("kinesis.endpoint_url", &config.kinesis.endpoint_url),
        ("lake.endpoint_url", &config.lake.endpoint_url),
        ("aws.endpoint_url", &config.aws.endpoint_url),
    ] {
        let parsed = url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let has_login = url.contains('@');
        require(url.is_empty() || has_login || parsed.is_some(), &format!("`{key}` must be an http:// or https:// address, not `{url}`"));
        require(!has_login, &format!("`{key}` must not hold a user or password"));
    }
    for (key, url) in [("lake.url", &config.lake.url), ("tables.url", &config.tables.url)] {
        require(is_location(url), &format!("`{key}` must be a folder or s3://BUCKET, not `{url}`"));
    }
    let bucket = config.lake.url.strip_prefix("s3://").map(|bucket| bucket.trim_end_matches('/'));
    require(
        bucket.is_none_or(|bucket| !bucket.is_empty() && !bucket.contains('/')),
        "`lake.url` must be s3://BUCKET, without a folder: the sink's `topics.dir` names one",
    );
    if config.target == Target::Aws {
        require(config.lake.url.is_empty() || config.lake.url.starts_with("s3://"), "`lake.url` must be s3://BUCKET on target aws");
    }
    for (key, text) in [
        ("database.url", config.database.url.expose_secret()),
        ("kafka.bootstrap_servers", config.kafka.bootstrap_servers.as_str()),
        ("gateway.url", &config.gateway.url),
        ("lake.url", &config.lake.url),
        ("tables.url", &config.tables.url),
    ] {
        let has_placeholder = text.find('<').is_some_and(|start| text[start..].contains('>'));
        require(!has_placeholder, &format!("`{key}` still holds a <placeholder>: fill it in, or leave the line out"));
    }
}

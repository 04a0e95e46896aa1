//! Kafka clients with one configuration, authentication and error handling for every stage.

pub mod admin;
pub mod auth;
pub mod context;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::FutureProducer;
use rdkafka::types::RDKafkaErrorCode as Code;
use secrecy::ExposeSecret;

use crate::base::config::schema::{Config, KafkaAuth};
use crate::base::error::{Error, Result};
use crate::clients::kafka::auth::authenticate;
use crate::clients::kafka::context::Context;
use crate::clients::loopback::is_loopback;

/// Returns the librdkafka settings of every client: brokers, authentication, reconnects.
///
/// # Errors
/// The addresses of the brokers are not known; the password would be sent unencrypted to another
/// machine.
pub fn client_config(config: &Config) -> Result<ClientConfig> {
    let mut client = ClientConfig::new();
    let servers = config.endpoints().bootstrap_servers()?;
    check_encryption(config, &servers)?;
    client.set("bootstrap.servers", servers);
    client.set("client.id", "pinpipe");
    client.set("socket.keepalive.enable", "true");
    client.set("reconnect.backoff.max.ms", "2000");
    let protocol = match (config.kafka.auth, config.kafka.tls) {
        (KafkaAuth::Iam, _) => "sasl_ssl",
        (KafkaAuth::None, true) => "ssl",
        (KafkaAuth::None, false) => "plaintext",
        (_, true) => "sasl_ssl",
        (_, false) => "sasl_plaintext",
    };
    client.set("security.protocol", protocol);
    // OpenSSL is linked statically and does not know where this system stores its certificates. It
    // reads SSL_CERT_FILE and SSL_CERT_DIR itself.
    if protocol.ends_with("ssl")
        && ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().all(|name| std::env::var_os(name).is_none())
    {
        client.set("ssl.ca.location", "probe");
    }
    match config.kafka.auth {
        KafkaAuth::None => {}
        KafkaAuth::Iam => {
            client.set("sasl.mechanisms", "OAUTHBEARER");
        }
        KafkaAuth::Plain | KafkaAuth::ScramSha512 => {
            let mechanism =
                if config.kafka.auth == KafkaAuth::Plain { "PLAIN" } else { "SCRAM-SHA-512" };
            client.set("sasl.mechanisms", mechanism).set("sasl.username", &config.kafka.username);
            if let Some(password) = &config.secrets.kafka_password {
                client.set("sasl.password", password.expose_secret());
            }
        }
    }
    Ok(client)
}

/// PLAIN sends the password itself; SCRAM proves that the client knows it.
fn check_encryption(config: &Config, servers: &str) -> Result<()> {
    let is_local = |server: &str| {
        let host = server.trim().rsplit_once(':').map_or(server, |(host, _)| host);
        is_loopback(host)
    };
    if config.kafka.auth == KafkaAuth::Plain
        && !config.kafka.tls
        && !servers.split(',').all(is_local)
    {
        return Err(Error::usage(format!(
            "cannot send the Kafka password to `{servers}`: the connection is not encrypted"
        ))
        .hint("set `kafka.tls` to true, or `kafka.auth` to \"scram-sha-512\""));
    }
    Ok(())
}

/// Returns the configuration with its current brokers, so that a long-running client does not
/// depend on the address file of a local stack that is being restarted.
pub fn pinned(config: &Config) -> Result<Config> {
    let mut pinned = config.clone();
    pinned.kafka.bootstrap_servers = config.endpoints().bootstrap_servers()?;
    Ok(pinned)
}

/// Creates a producer with `acks=all`: a record is acknowledged once every in-sync replica has it.
pub fn producer(config: &Config) -> Result<FutureProducer<Context>> {
    let mut client = client_config(config)?;
    client.set("acks", "all").set("linger.ms", "2").set("compression.type", "lz4");
    client.set("delivery.timeout.ms", config.kafka.timeout_ms.max(1_000).to_string());
    client.set("request.timeout.ms", config.kafka.timeout_ms.to_string());
    client.set("queue.buffering.max.kbytes", "32768");
    client.set("topic.metadata.refresh.interval.ms", "10000");
    // The partitioner of Java clients and of the Kafka REST Proxy.
    client.set("partitioner", "murmur2_random");
    // rdkafka polls the producer on a separate thread, which also fetches its tokens.
    client
        .create_with_context(Context::new(config))
        .map_err(|error| creation_failure(config, &error))
}

/// Creates a consumer without automatic commits, for manual partition assignment. Without a
/// committed offset, it reads from the start of a partition.
pub fn consumer(config: &Config, group: &str) -> Result<BaseConsumer<Context>> {
    let mut client = client_config(config)?;
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    client.set("auto.offset.reset", "earliest").set("enable.partition.eof", "false");
    // Limits the prefetched data of librdkafka over all partitions.
    client.set("queued.max.messages.kbytes", "16384").set("fetch.message.max.bytes", "2097152");
    client.set("fetch.wait.max.ms", "100").set("fetch.error.backoff.ms", "100");
    let consumer: BaseConsumer<Context> = client
        .create_with_context(Context::new(config))
        .map_err(|error| creation_failure(config, &error))?;
    authenticate(config, consumer.client())?;
    Ok(consumer)
}

/// Returns true if Kafka accepts the topic name.
/// Source: `Topic.validate` of Apache Kafka.
pub fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || "._-".contains(character))
}

fn creation_failure(config: &Config, error: &KafkaError) -> Error {
    Error::failed(format!("cannot create a Kafka client for `{}`", config.kafka.bootstrap_servers))
        .with_source(error.to_string())
}

/// The code of a failed call. `rdkafka_error_code` returns none for an admin operation.
fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// Describes the cause of a failed call, without the code that the library prepends, as in
/// `UnknownTopicOrPartition (Broker: Unknown topic or partition)`.
fn cause(error: &KafkaError) -> String {
    match code_of(error) {
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown) => "cannot connect".into(),
        Some(Code::OperationTimedOut) => "no response in time".into(),
        Some(Code::Resolve) => "unknown host name".into(),
        Some(code) => {
            let text = code.to_string();
            let description =
                text.split_once('(').map_or(text.as_str(), |(_, rest)| rest.trim_end_matches(')'));
            description.split_once(": ").map_or(description, |(_, rest)| rest).to_string()
        }
        None => error.to_string(),
    }
}

/// Converts a failed Kafka call into an error with a hint.
pub fn failure(action: &str, config: &Config, error: &KafkaError) -> Error {
    let servers = config.endpoints().bootstrap_servers().unwrap_or_default();
    let code = code_of(error);
    let is_transient = matches!(
        code,
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::Resolve
        )
    );
    let hint = match code {
        _ if is_transient && config.target == crate::base::config::schema::Target::Aws => {
            "MSK brokers are reachable only inside their VPC: run the command there, or manage \
             topics another way with `topics.via`"
        }
        _ if is_transient => {
            "check that the broker is up and reachable; `pinpipe local` starts a local one"
        }
        Some(
            Code::Authentication
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed,
        ) => {
            "check `kafka.auth`, the user's permissions and the password in PINPIPE_KAFKA_PASSWORD"
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
            "run `pinpipe topics create` to create the topics of the pipeline, or \
             `pinpipe topics list` to show the existing topics"
        }
        _ => "run `pinpipe doctor` to test every connection",
    };
    Error::failed(format!("{action} on Kafka at `{servers}`"))
        .with_source(cause(error))
        .hint(hint)
        .retryable(is_transient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_do_not_contain_error_codes() {
        let cases = [
            (Code::BrokerTransportFailure, "cannot connect"),
            (Code::OperationTimedOut, "no response in time"),
            (Code::UnknownTopicOrPartition, "Unknown topic or partition"),
        ];
        for (code, expected) in cases {
            assert_eq!(cause(&KafkaError::MetadataFetch(code)), expected);
        }
    }
}

//! The sections of the configuration; `config/local.toml` explains every key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// The configuration, merged from defaults, file, environment and flags.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub target: Target,
    pub id: String,
    pub data_dir: PathBuf,
    pub database: Database,
    pub local: Local,
    pub kafka: Kafka,
    pub topics: Topics,
    pub gateway: Gateway,
    pub kinesis: Kinesis,
    pub lake: Lake,
    pub connector: Connector,
    pub emulate: Emulate,
    pub batch: Batch,
    pub spark: Spark,
    pub databricks: Databricks,
    pub schedule: Schedule,
    pub stream: Stream,
    pub tables: Tables,
    pub aws: Aws,
    pub provision: Provision,
    pub network: Network,
    pub client: Client,
    pub cluster: Cluster,
    pub api: Api,
    pub airflow: Airflow,
    #[serde(skip)]
    pub secrets: Secrets,
    /// Checksum of all keys and values, without secrets: two configurations with the same
    /// checksum are equal.
    #[serde(skip)]
    pub checksum: String,
    /// Warnings for the user: former names of keys, misspelled environment variables.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Secrets, which are read only from the environment and `.env`.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    pub database_password: Option<SecretString>,
    pub kafka_password: Option<SecretString>,
    pub gateway_api_key: Option<SecretString>,
    pub databricks_token: Option<SecretString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// All services on this machine, inside pinpipe
    Local,
    /// Managed services in an AWS account
    Aws,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Database {
    /// A secret, because a URL from the environment may contain a password.
    pub url: SecretString,
    pub max_connections: u32,
    pub connect_timeout_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Local {
    pub host: String,
    pub kafka_port: u16,
    pub gateway_port: u16,
    pub kinesis_port: u16,
    pub control_port: u16,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Kafka {
    pub bootstrap_servers: String,
    pub auth: KafkaAuth,
    pub tls: bool,
    pub username: String,
    pub timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KafkaAuth {
    None,
    Iam,
    Plain,
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Topics {
    pub partitions: i32,
    pub replication_factor: i32,
    pub via: TopicsVia,
}

/// Backend that creates topics on target aws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicsVia {
    /// The topic operations of MSK if the cluster supports them, otherwise the Kafka protocol if
    /// the brokers can be reached, otherwise the client machine.
    Auto,
    /// The topic operations of MSK, Kafka 3.6 and newer.
    Msk,
    /// `kafka-topics.sh` on the client machine, through SSM Run Command.
    Ssm,
    /// The Kafka protocol, from this machine.
    Direct,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Gateway {
    pub url: String,
    pub body_limit_bytes: usize,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Kinesis {
    pub endpoint_url: String,
    pub mode: StreamMode,
    pub shards: i32,
    pub retention_hours: u32,
}

/// Capacity mode of a Kinesis stream, which determines its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamMode {
    /// Priced by shards
    Provisioned,
    /// Priced by records; AWS sets the number of shards
    OnDemand,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Lake {
    pub url: String,
    pub endpoint_url: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Connector {
    pub name: String,
    pub plugin: String,
    pub plugin_name: String,
    pub worker_name: String,
    pub worker_properties: BTreeMap<String, String>,
    pub connect_version: String,
    pub mcu: i32,
    pub workers: i32,
    pub properties: BTreeMap<String, String>,
}

/// Services that `emulate` sends records to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// Kafka topics, through the gateway
    Kafka,
    /// Kinesis streams, through the gateway
    Kinesis,
    /// Kafka topics and Kinesis streams, through the gateway
    Both,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Emulate {
    pub to: Destination,
    pub rate: f64,
    pub jitter_ms: u64,
    pub concurrency: usize,
    pub batch: usize,
    pub retries: usize,
    pub timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Median {
    /// Mean of the two middle values
    Interpolated,
    /// Lower of the two middle values
    Lower,
}

/// Query engine of `batch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BatchEngine {
    /// DataFusion, inside pinpipe
    Embedded,
    /// Apache Spark, through spark-submit or on Databricks
    Spark,
}

/// File format of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AnswerFormat {
    /// One CSV file for each answer
    Csv,
    /// One JSON Lines file for each answer
    Json,
    /// One Parquet file for each answer
    Parquet,
    /// One Delta table for each answer, next to the clean tables
    Delta,
    /// One HTML page for all answers, report.html, with charts
    Html,
}

/// What batch does with an object of the lake that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnreadable {
    /// The run fails
    Fail,
    /// The run continues without the object; the next run tries to read it again
    Skip,
}

/// Cells of CSV files that a spreadsheet would take for a formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CsvFormulas {
    /// Written as they are, for programs.
    Keep,
    /// Written after an apostrophe, for spreadsheets, which then show them as text.
    Escape,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Batch {
    pub engine: BatchEngine,
    pub median: Median,
    pub formats: Vec<AnswerFormat>,
    pub csv_formulas: CsvFormulas,
    pub questions: String,
    pub memory: String,
    pub on_unreadable: OnUnreadable,
    pub retention_hours: u32,
}

/// Where Spark runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SparkPlace {
    /// This machine or a cluster, as spark-submit is configured
    SparkSubmit,
    /// A cluster in a Databricks workspace
    Databricks,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Spark {
    pub place: SparkPlace,
    pub submit: String,
    pub master: String,
    pub arguments: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Databricks {
    pub host: String,
    pub profile: String,
    pub folder: String,
    pub cluster_id: String,
    pub spark_version: String,
    pub node_type: String,
    pub workers: u32,
    pub data_security_mode: String,
    pub instance_profile_arn: String,
    pub secret_scope: String,
    pub timeout_minutes: u32,
    pub poll_interval_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Schedule {
    pub enabled: bool,
    pub cron: String,
    pub start_date: String,
    pub catchup: bool,
    pub retries: u32,
    pub retry_delay_seconds: u32,
}

/// Service that `stream` reads records from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Kinesis streams
    Kinesis,
    /// Kafka topics
    Kafka,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Stream {
    pub source: Source,
    pub interval_ms: u64,
    pub batch_records: usize,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Tables {
    pub url: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Aws {
    pub region: String,
    pub profile: String,
    pub endpoint_url: String,
    pub attempts: u32,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Provision {
    pub state: String,
    pub max_concurrency: usize,
    pub operation_timeout_minutes: u64,
    pub poll_interval_ms: u64,
    pub consistency_timeout_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Network {
    pub vpc: String,
    pub subnets: Vec<String>,
    pub ip_ranges_url: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Client {
    pub image: String,
    pub instance_type: String,
    pub key_file: PathBuf,
    pub ssh_from: Vec<String>,
    pub proxy_from: Vec<String>,
    pub kafka_version: String,
    pub scala_version: String,
    pub iam_auth_version: String,
    pub iam_auth_sha512: String,
    pub confluent_version: String,
    pub confluent_sha512: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Cluster {
    pub name: String,
    pub kafka_version: String,
    pub instance_type: String,
    pub brokers: i32,
    pub volume_gib: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiAuth {
    /// An API key and a usage plan.
    Key,
    /// Requests signed with AWS credentials.
    Iam,
    /// No authentication.
    None,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Api {
    pub name: String,
    pub stage: String,
    pub auth: ApiAuth,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Airflow {
    pub enabled: bool,
    pub name: String,
    pub bucket: String,
    pub version: String,
    pub class: String,
    pub subnets: Vec<String>,
    pub requirements: Vec<String>,
}

/// Built-in default of the connector property `s3.bucket.name`.
const DEFAULT_BUCKET: &str = "user-{id}-bucket";

impl Config {
    /// Returns the topic of a record kind: `<id>.pin`.
    pub fn topic(&self, kind: crate::base::model::Kind) -> String {
        format!("{}.{}", self.id, kind.name())
    }

    /// Returns the Kinesis stream of a record kind: `streaming-<id>-pin`.
    pub fn stream_name(&self, kind: crate::base::model::Kind) -> String {
        format!("streaming-{}-{}", self.id, kind.name())
    }

    /// Returns the name of the connector; default: `<id>-connector`.
    pub fn connector_name(&self) -> String {
        if self.connector.name.is_empty() {
            format!("{}-connector", self.id)
        } else {
            self.connector.name.clone()
        }
    }

    /// Returns the bucket that the sink writes to.
    pub fn bucket(&self) -> String {
        self.connector_properties().get("s3.bucket.name").cloned().unwrap_or_default()
    }

    /// Returns the name of the Airflow environment; default: `<id>-airflow`.
    pub fn airflow_name(&self) -> String {
        if self.airflow.name.is_empty() {
            format!("{}-airflow", self.id)
        } else {
            self.airflow.name.clone()
        }
    }

    /// Whether Airflow runs batch on a schedule.
    pub fn has_schedule(&self) -> bool {
        self.airflow.enabled && self.schedule.enabled
    }

    /// Returns the S3 bucket in `lake.url`. `None`: the lake is a folder, or `lake.url` is empty.
    pub fn lake_bucket_on_s3(&self) -> Option<&str> {
        self.lake.url.strip_prefix("s3://").map(|bucket| bucket.trim_end_matches('/'))
    }

    /// Returns the properties of the connector with `{id}` and `{region}` replaced. The bucket of
    /// `lake.url` replaces the default `s3.bucket.name`.
    pub fn connector_properties(&self) -> BTreeMap<String, String> {
        let lake = self.lake_bucket_on_s3();
        let rendered = |value: &String| match lake {
            Some(bucket) if value == DEFAULT_BUCKET => bucket.to_string(),
            _ => value.replace("{id}", &self.id).replace("{region}", &self.aws.region),
        };
        self.connector
            .properties
            .iter()
            .map(|(key, value)| (key.clone(), rendered(value)))
            .collect()
    }
}

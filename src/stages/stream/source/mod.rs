//! Sources of records: one file per service, each a [`RecordSource`].

pub mod kafka;
pub mod kinesis;
pub mod record_source;

use crate::base::config::schema::{Config, Source};
use crate::base::error::Result;
use crate::base::model::Kind;
use crate::stages::stream::source::kafka::KafkaSource;
use crate::stages::stream::source::kinesis::KinesisSource;
use crate::stages::stream::source::record_source::RecordSource;

/// A source, with its names in reports and checkpoints.
pub struct OpenSource {
    /// Name of the service in checkpoints: `kinesis` or `kafka`.
    pub service: &'static str,
    /// Name of the stream or topic.
    pub name: String,
    pub records: Box<dyn RecordSource>,
}

/// Opens the stream or topic of a record kind.
///
/// # Errors
/// The service cannot be reached; the stream or topic does not exist.
pub async fn open(config: &Config, source: Source, kind: Kind) -> Result<OpenSource> {
    match source {
        Source::Kinesis => {
            let name = config.stream_name(kind);
            let records =
                KinesisSource::open(crate::clients::aws::kinesis(config).await?, &name).await?;
            Ok(OpenSource { service: "kinesis", name, records: Box::new(records) })
        }
        Source::Kafka => {
            let name = config.topic(kind);
            let records = KafkaSource::open(config, &name).await?;
            Ok(OpenSource { service: "kafka", name, records: Box::new(records) })
        }
    }
}

//! Typed properties of the sink connector. A property that the local sink does not support is
//! rejected by name.
//!
//! Names and meanings: <https://docs.confluent.io/kafka-connectors/s3-sink/current/configuration_options.html>

use std::collections::BTreeMap;
use std::time::Duration;

use chrono_tz::Tz;

use crate::base::error::{Error, Result};
use crate::data::lake::compression::Compression;
use crate::data::lake::format::FORMATS;
use crate::data::lake::format::object_format::ObjectFormat;
use crate::stages::sink::partitioner::{Partitioner, TimestampSource};

/// Minimum and default of `s3.part.size`, in bytes: the minimum part size of S3.
const MIN_PART_BYTES: usize = 5 * 1024 * 1024;

/// Maximum of `filename.offset.zero.pad.width`: more digits than any offset has.
const MAX_OFFSET_DIGITS: usize = 20;

/// Topics that the sink reads: `topics` or `topics.regex`.
#[derive(Debug, Clone)]
pub enum Topics {
    List(Vec<String>),
    Regex(regex::Regex),
}

impl Topics {
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Self::List(topics) => topics.iter().any(|name| name == topic),
            Self::Regex(regex) => regex.is_match(topic),
        }
    }
}

/// Typed properties of a sink connector.
#[derive(Debug, Clone)]
pub struct SinkProperties {
    pub topics: Topics,
    pub bucket: String,
    pub store_url: Option<String>,
    pub topics_dir: String,
    pub file_delimiter: String,
    pub offset_digits: usize,
    pub format: &'static dyn ObjectFormat,
    pub compression: Compression,
    pub part_bytes: usize,
    /// Maximum number of records per object.
    pub flush_size: u64,
    /// Maximum span of record time per object.
    pub rotate_interval: Option<Duration>,
    /// Wall-clock interval at which objects are closed.
    pub rotate_schedule: Option<Duration>,
    pub timezone: Tz,
    pub partitioner: Partitioner,
    pub timestamp: TimestampSource,
    /// Skips a record that is not JSON instead of failing the task.
    pub tolerate_errors: bool,
    /// Skips a record without a value instead of failing the task.
    pub ignore_nulls: bool,
}

/// Removes properties one by one and collects their problems.
struct Reader {
    remaining: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Reader {
    fn text(&mut self, key: &str) -> Option<String> {
        self.remaining
            .remove(key)
            .map(|value| value.trim().to_string())
            .filter(|value| !value.is_empty())
    }

    fn number<T>(&mut self, key: &str, min: T) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let text = self.text(key)?;
        let number = text.parse().ok().filter(|number| *number >= min);
        if number.is_none() {
            self.problems
                .push(format!("`{key}`: expected an integer of at least {min}, got `{text}`"));
        }
        number
    }

    /// Reads a property of which the local sink supports only the `accepted` values.
    fn only(&mut self, key: &str, accepted: &[&str]) -> Option<String> {
        let value = self.text(key)?;
        if accepted.iter().any(|name| is_named(&value, name)) {
            return Some(value);
        }
        self.problems.push(format!(
            "`{key}` = `{value}` is not supported by the local sink: expected {}",
            accepted.join(" or ")
        ));
        None
    }

    /// Reads a property whose value is the name of one of `choices`.
    fn choice<T: Copy>(
        &mut self,
        key: &str,
        choices: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|choice| name(*choice)).collect();
        let value = self.only(key, &names)?;
        choices.iter().copied().find(|choice| is_named(&value, name(*choice)))
    }

    fn duration(&mut self, key: &str) -> Option<Duration> {
        self.number::<i64>(key, -1)
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| *number > 0)
            .map(Duration::from_millis)
    }
}

/// Returns whether a value is this name, with or without a package before it.
fn is_named(value: &str, name: &str) -> bool {
    value.eq_ignore_ascii_case(name) || value.ends_with(&format!(".{name}"))
}

impl SinkProperties {
    /// Parses the properties of a connector.
    ///
    /// # Errors
    /// A property is missing, invalid or not supported. The usage error lists all of them.
    pub fn parse(properties: &BTreeMap<String, String>) -> Result<Self> {
        let mut reader = Reader { remaining: properties.clone(), problems: Vec::new() };
        let r = &mut reader;
        r.text("name");
        if r.only("connector.class", &["S3SinkConnector"]).is_none() && r.problems.is_empty() {
            r.problems.push("`connector.class` is missing".into());
        }
        // The local sink always runs one task, which every valid `tasks.max` permits.
        r.number::<u32>("tasks.max", 1);
        r.text("s3.region");
        r.only("storage.class", &["S3Storage"]);
        let format = r.choice("format.class", &FORMATS, |format| format.class());
        r.only("schema.compatibility", &["NONE"]);
        r.only("key.converter", &["StringConverter", "ByteArrayConverter", "JsonConverter"]);
        r.only("key.converter.schemas.enable", &["false"]);
        r.only("value.converter", &["JsonConverter"]);
        r.only("value.converter.schemas.enable", &["false"]);
        r.only("directory.delim", &["/"]);
        r.only("errors.log.enable", &["true", "false"]);
        r.only("locale", &["en", "en-US", "en_US", "en-GB"]);
        let topics = match (r.text("topics"), r.text("topics.regex")) {
            (Some(list), None) => {
                Some(Topics::List(list.split(',').map(|topic| topic.trim().to_string()).collect()))
            }
            (None, Some(pattern)) => match regex::Regex::new(&format!("^(?:{pattern})$")) {
                Ok(regex) => Some(Topics::Regex(regex)),
                Err(_) => {
                    r.problems.push(format!(
                        "`topics.regex`: expected a regular expression, got `{pattern}`"
                    ));
                    None
                }
            },
            (Some(_), Some(_)) => {
                r.problems.push("`topics` and `topics.regex` are mutually exclusive".into());
                None
            }
            (None, None) => {
                r.problems.push("`topics` or `topics.regex` is missing".into());
                None
            }
        };
        let bucket = r.text("s3.bucket.name");
        match &bucket {
            None => r.problems.push("`s3.bucket.name` is missing".into()),
            // If the lake is a folder, this is the name of a folder and must not leave the lake.
            Some(name)
                if !name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                    || name.starts_with('.') =>
            {
                r.problems
                    .push(format!("`s3.bucket.name`: expected the name of a bucket, got `{name}`"));
            }
            Some(_) => {}
        }
        let flush_size = r.number::<u64>("flush.size", 1);
        if flush_size.is_none() && !properties.contains_key("flush.size") {
            r.problems.push("`flush.size` is missing".into());
        }
        let rotate_interval = r.duration("rotate.interval.ms");
        let rotate_schedule = r.duration("rotate.schedule.interval.ms");
        let timezone_name = r.text("timezone");
        if rotate_schedule.is_some() && timezone_name.is_none() {
            r.problems.push("`rotate.schedule.interval.ms` requires `timezone`".into());
        }
        let timezone: Tz = match timezone_name.as_deref().map(str::parse) {
            None => chrono_tz::UTC,
            Some(Ok(timezone)) => timezone,
            Some(Err(_)) => {
                r.problems.push(format!(
                    "`timezone`: expected a name such as UTC or Europe/Berlin, got `{}`",
                    timezone_name.as_deref().unwrap_or_default()
                ));
                chrono_tz::UTC
            }
        };
        let partitioner = Partitioner::parse(
            r.text("partitioner.class").as_deref(),
            r.text("partition.field.name"),
            r.text("path.format"),
            r.duration("partition.duration.ms"),
            &mut r.problems,
        );
        let timestamp = TimestampSource::parse(
            r.text("timestamp.extractor").as_deref(),
            r.text("timestamp.field"),
            &mut r.problems,
        );
        let offset_digits = r.number::<usize>("filename.offset.zero.pad.width", 0).unwrap_or(10);
        if offset_digits > MAX_OFFSET_DIGITS {
            r.problems.push(format!(
                "`filename.offset.zero.pad.width`: expected at most {MAX_OFFSET_DIGITS}, got \
                 {offset_digits}"
            ));
        }
        let compression = r.choice("s3.compression.type", &Compression::ALL, Compression::name);
        let properties = Self {
            topics: topics.unwrap_or(Topics::List(Vec::new())),
            bucket: bucket.unwrap_or_default(),
            store_url: r.text("store.url"),
            topics_dir: r.text("topics.dir").unwrap_or_else(|| "topics".into()),
            file_delimiter: r.text("file.delim").unwrap_or_else(|| "+".into()),
            offset_digits,
            format: format.unwrap_or(FORMATS[0]),
            compression: compression.unwrap_or(Compression::None),
            part_bytes: r.number::<usize>("s3.part.size", MIN_PART_BYTES).unwrap_or(MIN_PART_BYTES),
            flush_size: flush_size.unwrap_or(1),
            rotate_interval,
            rotate_schedule,
            timezone,
            partitioner,
            timestamp,
            tolerate_errors: r
                .only("errors.tolerance", &["none", "all"])
                .is_some_and(|value| value.eq_ignore_ascii_case("all")),
            ignore_nulls: r
                .only("behavior.on.null.values", &["fail", "ignore"])
                .is_some_and(|value| value.eq_ignore_ascii_case("ignore")),
        };
        for key in reader.remaining.keys() {
            reader.problems.push(format!("`{key}` is not supported by the local sink"));
        }
        if reader.problems.is_empty() {
            return Ok(properties);
        }
        let list: String =
            reader.problems.iter().map(|problem| format!("\n  - {problem}")).collect();
        Err(Error::usage(format!(
            "invalid connector properties: {} error(s){list}",
            reader.problems.len()
        ))
        .hint(
            "correct `[connector.properties]`; the local sink supports the properties of the \
             Confluent S3 sink for JSON",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(changes: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut properties: BTreeMap<String, String> = [
            ("connector.class", "io.confluent.connect.s3.S3SinkConnector"),
            ("topics.regex", "a\\..*"),
            ("s3.bucket.name", "b"),
            ("flush.size", "3"),
        ]
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
        for (key, value) in changes {
            properties.insert(key.to_string(), value.to_string());
        }
        properties
    }

    #[test]
    fn rejects_unsupported_properties_by_name() {
        let result = SinkProperties::parse(&properties(&[
            ("s3.acl.canned", "private"),
            ("format.class", "io.confluent.connect.s3.format.avro.AvroFormat"),
            ("rotate.schedule.interval.ms", "5"),
        ]));
        let text = result.expect_err("three invalid properties").to_string();
        for part in
            ["3 error", "`s3.acl.canned` is not supported", "AvroFormat", "requires `timezone`"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn limits_the_width_of_offsets_in_names() {
        let parse = |width: &str| {
            SinkProperties::parse(&properties(&[("filename.offset.zero.pad.width", width)]))
        };
        assert_eq!(parse("20").map(|properties| properties.offset_digits).ok(), Some(20));
        for width in ["21", "100000"] {
            let text = parse(width).expect_err("too wide").to_string();
            assert!(text.contains("pad.width`: expected at most 20"), "{text}");
        }
    }

    #[test]
    fn matches_the_regex_against_the_entire_name() {
        let properties = SinkProperties::parse(&properties(&[])).expect("valid properties");
        assert!(properties.topics.matches("a.pin"));
        assert!(!properties.topics.matches("ba.pin"));
        assert!(!properties.topics.matches("axpin"));
    }
}

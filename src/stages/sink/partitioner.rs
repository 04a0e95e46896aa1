//! Partitioners, which choose the folder of a record below the folder of its topic.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;

/// Partitioners of the Confluent S3 sink connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partitioner {
    /// `partition=<kafka partition>`
    Default,
    /// `<field>=<value>/…`
    Field(Vec<String>),
    /// A path formatted from the record's time, which is truncated to a multiple of `duration`.
    Time { format: Vec<Part>, duration: Duration },
}

/// Element of `path.format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Literal(String),
    /// A letter of Java's date format and the number of its repetitions.
    Field(char, usize),
}

/// Source of a record's time, chosen by `timestamp.extractor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimestampSource {
    Wallclock,
    Record,
    Field(String),
}

impl TimestampSource {
    /// Parses `timestamp.extractor` and `timestamp.field`. An error is added to `problems`.
    pub fn parse(
        extractor: Option<&str>,
        field: Option<String>,
        problems: &mut Vec<String>,
    ) -> Self {
        match extractor {
            None | Some("Wallclock") => Self::Wallclock,
            Some("Record") => Self::Record,
            Some("RecordField") => Self::Field(field.unwrap_or_else(|| "timestamp".into())),
            Some(other) => {
                problems.push(format!(
                    "`timestamp.extractor` = `{other}` is not supported by the local sink: \
                     expected Wallclock, Record or RecordField"
                ));
                Self::Wallclock
            }
        }
    }

    /// Returns the record's time in milliseconds since the epoch, or `None` if the field is not a
    /// time.
    pub fn extract(&self, value: &Value, record_ms: i64) -> Option<i64> {
        match self {
            Self::Wallclock => Some(Utc::now().timestamp_millis()),
            Self::Record => Some(record_ms),
            Self::Field(name) => match name
                .split('.')
                .try_fold(value, |value, part| value.get(part))?
            {
                Value::Number(number) => number.as_i64(),
                Value::String(text) => {
                    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"].iter().find_map(
                        |format| chrono::NaiveDateTime::parse_from_str(text, format).ok(),
                    );
                    naive.map(|time| time.and_utc().timestamp_millis()).or_else(|| {
                        DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis())
                    })
                }
                _ => None,
            },
        }
    }
}

impl Partitioner {
    /// Parses the properties of the partitioner. An error is added to `problems`.
    pub fn parse(
        class: Option<&str>,
        fields: Option<String>,
        format: Option<String>,
        duration: Option<Duration>,
        problems: &mut Vec<String>,
    ) -> Self {
        let class = class.map(|class| class.rsplit('.').next().unwrap_or(class).to_string());
        let hourly = "'year'=YYYY/'month'=MM/'day'=dd/'hour'=HH";
        let daily = "'year'=YYYY/'month'=MM/'day'=dd";
        let parsed = match class.as_deref() {
            None | Some("DefaultPartitioner") => return Self::Default,
            Some("FieldPartitioner") => match fields {
                Some(fields) => {
                    return Self::Field(
                        fields.split(',').map(|field| field.trim().to_string()).collect(),
                    );
                }
                None => Err("FieldPartitioner requires `partition.field.name`".to_string()),
            },
            Some("TimeBasedPartitioner") => match (format, duration) {
                (Some(format), Some(duration)) => {
                    parse_format(&format).map(|format| Self::Time { format, duration })
                }
                _ => Err("TimeBasedPartitioner requires `path.format` and `partition.duration.ms`"
                    .into()),
            },
            Some("HourlyPartitioner") => parse_format(hourly)
                .map(|format| Self::Time { format, duration: Duration::from_secs(3600) }),
            Some("DailyPartitioner") => parse_format(daily)
                .map(|format| Self::Time { format, duration: Duration::from_secs(86_400) }),
            Some(other) => Err(format!(
                "`partitioner.class` = `{other}` is not supported by the local sink: expected \
                 DefaultPartitioner, FieldPartitioner, TimeBasedPartitioner, HourlyPartitioner or \
                 DailyPartitioner"
            )),
        };
        parsed.unwrap_or_else(|problem| {
            problems.push(problem);
            Self::Default
        })
    }

    /// Returns the path below the topic's folder, or `None` if the record has no value for a part
    /// of the path.
    pub fn path(
        &self,
        kafka_partition: i32,
        value: &Value,
        time_ms: i64,
        timezone: Tz,
    ) -> Option<String> {
        match self {
            Self::Default => Some(format!("partition={kafka_partition}")),
            Self::Field(fields) => {
                let parts = fields.iter().map(|field| {
                    let field_value =
                        field.split('.').try_fold(value, |value, part| value.get(part))?;
                    let text =
                        field_value.as_str().map_or_else(|| field_value.to_string(), String::from);
                    Some(format!("{field}={text}"))
                });
                parts.collect::<Option<Vec<_>>>().map(|parts| parts.join("/"))
            }
            Self::Time { format, duration } => {
                let step = i64::try_from(duration.as_millis()).ok()?.max(1);
                let time = DateTime::from_timestamp_millis(time_ms)?.with_timezone(&timezone);
                // Truncated in local time, so that days start at local midnight.
                let offset_ms =
                    i64::from(chrono::Offset::fix(time.offset()).local_minus_utc()) * 1000;
                let truncated_ms = (time_ms + offset_ms).div_euclid(step) * step - offset_ms;
                let truncated =
                    DateTime::from_timestamp_millis(truncated_ms)?.with_timezone(&timezone);
                Some(format.iter().map(|part| part.render(&truncated)).collect())
            }
        }
    }
}

impl Part {
    fn render(&self, time: &DateTime<Tz>) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Field(letter, width) => {
                let text = match letter {
                    'y' | 'Y' => time.format("%Y"),
                    'M' => time.format("%m"),
                    'd' => time.format("%d"),
                    'H' => time.format("%H"),
                    'm' => time.format("%M"),
                    _ => time.format("%S"),
                }
                .to_string();
                match (*width, text.trim_start_matches('0')) {
                    (1, "") => "0".to_string(),
                    (1, short) => short.to_string(),
                    _ => text,
                }
            }
        }
    }
}

/// Parses the part of Java's date format that paths use: y Y M d H m s and text in single quotes.
fn parse_format(format: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\'' {
            parts.push(Part::Literal(characters.by_ref().take_while(|c| *c != '\'').collect()));
        } else if character.is_ascii_alphabetic() {
            if !"yYMdHms".contains(character) {
                return Err(format!(
                    "`path.format`: the letter `{character}` is not supported by the local sink: \
                     expected y, Y, M, d, H, m, s or text in single quotes"
                ));
            }
            let mut width = 1;
            while characters.next_if_eq(&character).is_some() {
                width += 1;
            }
            parts.push(Part::Field(character, width));
        } else {
            parts.push(Part::Literal(character.to_string()));
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn partitioner(
        class: &str,
        field: Option<&str>,
        format: Option<&str>,
        duration_ms: u64,
    ) -> Partitioner {
        let mut problems = Vec::new();
        let parsed = Partitioner::parse(
            Some(class),
            field.map(String::from),
            format.map(String::from),
            Some(Duration::from_millis(duration_ms)),
            &mut problems,
        );
        assert_eq!(problems, Vec::<String>::new());
        parsed
    }

    #[test]
    fn builds_the_paths_of_the_confluent_partitioners() {
        let value = json!({ "country": "Peru", "n": 5, "at": "2022-05-27 11:30:59" });
        let time_ms = TimestampSource::Field("at".into()).extract(&value, 0).expect("a time");
        let path =
            |partitioner: Partitioner, timezone| partitioner.path(2, &value, time_ms, timezone);
        assert_eq!(
            path(partitioner("x.DefaultPartitioner", None, None, 1), chrono_tz::UTC).as_deref(),
            Some("partition=2")
        );
        assert_eq!(
            path(partitioner("x.FieldPartitioner", Some("country,n"), None, 1), chrono_tz::UTC)
                .as_deref(),
            Some("country=Peru/n=5")
        );
        assert_eq!(
            path(partitioner("x.FieldPartitioner", Some("missing"), None, 1), chrono_tz::UTC),
            None
        );
        let timed = partitioner(
            "x.TimeBasedPartitioner",
            None,
            Some("'year'=YYYY/'month'=MM/'day'=dd/'hour'=HH"),
            3_600_000,
        );
        assert_eq!(
            path(timed, chrono_tz::UTC).as_deref(),
            Some("year=2022/month=05/day=27/hour=11")
        );
        assert_eq!(
            path(partitioner("x.DailyPartitioner", None, None, 1), chrono_tz::Asia::Tokyo)
                .as_deref(),
            Some("year=2022/month=05/day=27")
        );
    }
}

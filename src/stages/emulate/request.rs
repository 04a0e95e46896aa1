//! Requests to the gateway for each destination, and the outcomes in its responses.

use reqwest::Method;
use serde_json::{Value, json};

use crate::base::config::schema::{Config, Destination};
use crate::base::model::Kind;

/// One of the six destinations of records: the topic or the stream of a record kind.
#[derive(Debug, Clone)]
pub struct DeliveryTarget {
    pub kind: Kind,
    pub service: Service,
    /// Name of the topic or stream.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Kafka,
    Kinesis,
}

impl Service {
    pub fn name(self) -> &'static str {
        match self {
            Service::Kafka => "kafka",
            Service::Kinesis => "kinesis",
        }
    }
}

/// A record to deliver: its row number and its JSON.
#[derive(Debug, Clone)]
pub struct OutboundRecord {
    pub row: i64,
    pub json: String,
}

/// Outcome of one record of a request. A failure contains its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// Not delivered; a retry may succeed.
    Retry(String),
    /// Not delivered; a retry cannot succeed.
    Permanent(String),
}

/// Returns the topics and streams of a destination, ordered by record kind.
pub fn targets(config: &Config, to: Destination) -> Vec<DeliveryTarget> {
    let mut targets = Vec::new();
    for kind in Kind::ALL {
        if to != Destination::Kinesis {
            targets.push(DeliveryTarget {
                kind,
                service: Service::Kafka,
                name: config.topic(kind),
            });
        }
        if to != Destination::Kafka {
            targets.push(DeliveryTarget {
                kind,
                service: Service::Kinesis,
                name: config.stream_name(kind),
            });
        }
    }
    targets
}

impl DeliveryTarget {
    /// Returns method, path, content type and body of the request that delivers these records.
    pub fn request(&self, records: &[OutboundRecord]) -> (Method, String, &'static str, String) {
        match (self.service, records) {
            (Service::Kafka, _) => {
                let values: Vec<String> =
                    records.iter().map(|record| format!("{{\"value\":{}}}", record.json)).collect();
                (
                    Method::POST,
                    format!("/topics/{}", self.name),
                    "application/vnd.kafka.json.v2+json",
                    format!("{{\"records\":[{}]}}", values.join(",")),
                )
            }
            (Service::Kinesis, [record]) => {
                let body = format!(
                    "{{\"StreamName\":{},\"Data\":{},\"PartitionKey\":\"{}\"}}",
                    json!(self.name),
                    record.json,
                    record.row
                );
                (Method::PUT, format!("/streams/{}/record", self.name), "application/json", body)
            }
            (Service::Kinesis, _) => {
                let records: Vec<Value> =
                    records.iter().map(|record| json!({ "data": record.json, "partition-key": record.row.to_string() })).collect();
                (
                    Method::PUT,
                    format!("/streams/{}/records", self.name),
                    "application/json",
                    json!({ "records": records }).to_string(),
                )
            }
        }
    }

    /// Parses a response. Returns one outcome for each of the `count` records of the request.
    pub fn outcomes(&self, status: u16, body: &[u8], count: usize) -> Vec<DeliveryOutcome> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |value: &Value, keys: [&str; 3]| {
            keys.iter()
                .find_map(|key| value.get(*key).and_then(Value::as_str))
                .unwrap_or("no reason was given")
                .to_string()
        };
        if status != 200 {
            let reason = format!("HTTP {status}: {}", text(&body, ["message", "__type", "error"]));
            let throttled = body.get("__type").and_then(Value::as_str).is_some_and(|name| {
                name.contains("Throughput")
                    || name.contains("Throttl")
                    || name.contains("LimitExceeded")
            });
            let outcome = if matches!(status, 408 | 429 | 500..) || throttled {
                DeliveryOutcome::Retry(reason)
            } else {
                DeliveryOutcome::Permanent(reason)
            };
            return vec![outcome; count];
        }
        let (list, code_key, final_code) = match self.service {
            Service::Kafka => ("offsets", "error_code", Some(50002)),
            Service::Kinesis if count == 1 && body.get("Records").is_none() => {
                let has_sequence_number = body.get("SequenceNumber").is_some();
                return vec![if has_sequence_number {
                    DeliveryOutcome::Delivered
                } else {
                    DeliveryOutcome::Retry("the response has no sequence number".into())
                }];
            }
            Service::Kinesis => ("Records", "ErrorCode", None),
        };
        let results =
            body.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        (0..count)
            .map(|position| match results.get(position) {
                None => DeliveryOutcome::Retry("the response has no result for this record".into()),
                Some(result) => match result.get(code_key) {
                    None | Some(Value::Null) => DeliveryOutcome::Delivered,
                    Some(code) => {
                        let reason = format!(
                            "{code}: {}",
                            text(result, ["error", "ErrorMessage", "message"])
                        );
                        if final_code.is_some() && code.as_i64() == final_code {
                            DeliveryOutcome::Permanent(reason)
                        } else {
                            DeliveryOutcome::Retry(reason)
                        }
                    }
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(service: Service) -> DeliveryTarget {
        DeliveryTarget { kind: Kind::Pin, service, name: "x".into() }
    }

    #[test]
    fn distinguishes_retryable_from_permanent_failures() {
        let body = br#"{"offsets":[{"partition":0,"offset":1,"error_code":null},{"error_code":50003,"error":"later"},{"error_code":50002,"error":"never"}]}"#;
        let outcomes = target(Service::Kafka).outcomes(200, body, 4);
        assert_eq!(outcomes[0], DeliveryOutcome::Delivered);
        assert!(matches!(&outcomes[1], DeliveryOutcome::Retry(reason) if reason.contains("later")));
        assert!(
            matches!(&outcomes[2], DeliveryOutcome::Permanent(reason) if reason.contains("never"))
        );
        assert!(
            matches!(outcomes[3], DeliveryOutcome::Retry(_)),
            "a record without a result was not acknowledged"
        );
    }

    #[test]
    fn retries_throttling_but_not_a_missing_stream() {
        let kinesis = target(Service::Kinesis);
        assert!(matches!(
            kinesis.outcomes(400, br#"{"__type":"ProvisionedThroughputExceededException"}"#, 1)[0],
            DeliveryOutcome::Retry(_)
        ));
        assert!(matches!(
            kinesis.outcomes(400, br#"{"__type":"ResourceNotFoundException"}"#, 1)[0],
            DeliveryOutcome::Permanent(_)
        ));
        assert!(matches!(kinesis.outcomes(503, b"", 1)[0], DeliveryOutcome::Retry(_)));
        assert_eq!(
            kinesis.outcomes(200, br#"{"SequenceNumber":"1"}"#, 1),
            [DeliveryOutcome::Delivered]
        );
        assert!(matches!(
            kinesis.outcomes(200, br#"{"FailedRecordCount":1,"Records":[{"SequenceNumber":"1"},{"ErrorCode":"InternalFailure"}]}"#, 2)[..],
            [DeliveryOutcome::Delivered, DeliveryOutcome::Retry(_)]
        ));
    }
}

//! Texts that are sent to AWS with names filled in: policies, user data, mapping templates.

use super::account::Account;
use super::resource::{bucket, cluster, proxy_secret, role};

pub const USER_DATA: &str = include_str!("asset/user_data.sh");
pub const PROXY_ANSWERS: &str = include_str!("asset/proxy_answers.sh");

pub const EC2_TRUST: &str = include_str!("asset/policy/ec2_trust.json");
pub const CONNECTOR_TRUST: &str = include_str!("asset/policy/connector_trust.json");
pub const KINESIS_TRUST: &str = include_str!("asset/policy/kinesis_trust.json");
pub const AIRFLOW_TRUST: &str = include_str!("asset/policy/airflow_trust.json");
pub const CLIENT_POLICY: &str = include_str!("asset/policy/client.json");
pub const CONNECTOR_POLICY: &str = include_str!("asset/policy/connector.json");
pub const KINESIS_POLICY: &str = include_str!("asset/policy/kinesis.json");
pub const AIRFLOW_POLICY: &str = include_str!("asset/policy/airflow.json");

pub const LIST_STREAMS: &str = include_str!("asset/mapping/list_streams.vtl");
pub const DESCRIBE_STREAM: &str = include_str!("asset/mapping/describe_stream.vtl");
pub const CREATE_STREAM: &str = include_str!("asset/mapping/create_stream.vtl");
pub const DELETE_STREAM: &str = include_str!("asset/mapping/delete_stream.vtl");
pub const PUT_RECORD: &str = include_str!("asset/mapping/put_record.vtl");
pub const PUT_RECORDS: &str = include_str!("asset/mapping/put_records.vtl");

/// Names that are known before anything is made.
pub fn names(account: &Account) -> Vec<(&'static str, String)> {
    let config = &account.config;
    vec![
        ("account", account.id.clone()),
        ("partition", account.partition.clone()),
        ("region", config.aws.region.clone()),
        ("id", config.id.clone()),
        ("bucket", bucket::Use::Lake.name(config)),
        ("airflow-bucket", bucket::Use::Airflow.name(config)),
        ("airflow", config.airflow_name()),
        ("cluster", cluster::name(config)),
        ("connector", config.connector_name()),
        ("role-arn", role::role_arn(account, role::Holder::Client)),
        ("proxy-secret-parameter", proxy_secret::name(config)),
        ("shards", config.kinesis.shards.to_string()),
    ]
}

/// A template with every `@name@` filled in.
pub fn filled(template: &str, names: &[(&str, String)]) -> String {
    let mut text = template.to_string();
    for (name, value) in names {
        text = text.replace(&format!("@{name}@"), value);
    }
    text
}

/// The name that a text still asks for, if any.
#[cfg(test)]
fn left_over(text: &str) -> Option<&str> {
    let start = text.find('@')?;
    let end = text[start + 1..].find('@')? + start + 2;
    let name = &text[start + 1..end - 1];
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if is_name { Some(&text[start..end]) } else { left_over(&text[start + 1..]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_what_is_left_is_found() {
        let text = filled("a @id@ b @region@", &[("id", "me".into())]);
        assert_eq!(text, "a me b @region@");
        assert_eq!(left_over(&text), Some("@region@"));
        assert_eq!(left_over("me@example.org and you@example.org @x y@"), None);
    }
}

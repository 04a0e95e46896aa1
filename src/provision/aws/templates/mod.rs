//! Templates of the documents that are sent to AWS: policies, scripts and mapping templates.

pub const USER_DATA: &str = include_str!("user_data.sh");
pub const PROXY_ANSWERS: &str = include_str!("proxy_answers.sh");

pub const EC2_TRUST: &str = include_str!("policy/ec2_trust.json");
pub const CONNECTOR_TRUST: &str = include_str!("policy/connector_trust.json");
pub const KINESIS_TRUST: &str = include_str!("policy/kinesis_trust.json");
pub const AIRFLOW_TRUST: &str = include_str!("policy/airflow_trust.json");
pub const CLIENT_POLICY: &str = include_str!("policy/client.json");
pub const CONNECTOR_POLICY: &str = include_str!("policy/connector.json");
pub const KINESIS_POLICY: &str = include_str!("policy/kinesis.json");
pub const AIRFLOW_POLICY: &str = include_str!("policy/airflow.json");

pub const LIST_STREAMS: &str = include_str!("mapping/list_streams.vtl");
pub const DESCRIBE_STREAM: &str = include_str!("mapping/describe_stream.vtl");
pub const CREATE_STREAM: &str = include_str!("mapping/create_stream.vtl");
pub const DELETE_STREAM: &str = include_str!("mapping/delete_stream.vtl");
pub const PUT_RECORD: &str = include_str!("mapping/put_record.vtl");
pub const PUT_RECORDS: &str = include_str!("mapping/put_records.vtl");

/// Renders a template: replaces every `@name@` by its value.
pub fn render(template: &str, names: &[(&str, String)]) -> String {
    let mut text = template.to_string();
    for (name, value) in names {
        text = text.replace(&format!("@{name}@"), value);
    }
    text
}

/// Returns the first placeholder that remains in a text.
#[cfg(test)]
fn unresolved_placeholder(text: &str) -> Option<&str> {
    let start = text.find('@')?;
    let end = text[start + 1..].find('@')? + start + 2;
    let name = &text[start + 1..end - 1];
    let is_name = !name.is_empty()
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if is_name { Some(&text[start..end]) } else { unresolved_placeholder(&text[start + 1..]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_placeholders_and_finds_unresolved_ones() {
        let text = render("a @id@ b @region@", &[("id", "me".into())]);
        assert_eq!(text, "a me b @region@");
        assert_eq!(unresolved_placeholder(&text), Some("@region@"));
        assert_eq!(unresolved_placeholder("me@example.org and you@example.org @x y@"), None);
    }
}

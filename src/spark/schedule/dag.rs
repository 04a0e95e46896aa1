//! Python file of the DAG.

use serde_json::Value;

use crate::base::checksum::sha256;
use crate::base::config::schema::Config;
use crate::spark::databricks::cluster::submission;
use crate::spark::databricks::job::JobFiles;
use crate::spark::schedule::connection::CONNECTION;

/// Airflow template for the results folder of a run: the run id without characters that are invalid
/// in a path.
const RUN: &str = "{{ run_id | replace(':', '-') | replace('+', '-') }}";

/// Airflow template for the idempotency token. It is unique for each attempt, so that a lost
/// response does not start an attempt twice.
const ATTEMPT: &str = "{{ macros.uuid.uuid5(macros.uuid.NAMESPACE_URL, dag.dag_id ~ run_id ~ dag_run.start_date ~ ti.try_number) }}";

const TEMPLATE: &str = include_str!("dag.py");
/// Beginning of every DAG file that pinpipe writes, in all versions.
pub const DAG_BEGINS: &str = "\"\"\"Runs pinpipe's batch on Databricks.";

/// Returns the DAG id, `<id>_dag`.
pub fn dag_id(config: &Config) -> String {
    format!("{}_dag", config.id)
}

/// Returns the key of the DAG file in Airflow's bucket, `dags/<id>_dag.py`.
pub fn dag_key(config: &Config) -> String {
    format!("dags/{}.py", dag_id(config))
}

/// Returns the results folder of a run, equal to the rendered template `RUN`.
pub fn run_folder(run_id: &str) -> String {
    run_id.replace([':', '+'], "-")
}

/// Returns the DAG file that runs the job in this workspace folder.
pub fn rendered_dag(config: &Config, folder: &str) -> String {
    rendered(config, folder, &description(config, folder))
}

/// Returns the description of the DAG. Its checksum shows which version Airflow has loaded.
pub fn description(config: &Config, folder: &str) -> String {
    let checksum = sha256(rendered(config, folder, "").as_bytes());
    format!(
        "Cleans the lake and answers the questions, on Databricks (definition {})",
        &checksum[..12]
    )
}

fn rendered(config: &Config, folder: &str, description: &str) -> String {
    let schedule = &config.schedule;
    let body =
        submission(config, &format!("pinpipe batch {}", config.id), &JobFiles::of(folder), RUN);
    // Airflow renders the body as a template, but must not render values of the configuration.
    let mut body = map_texts(&body, &|text| {
        if text == RUN { text.to_string() } else { escaped(text) }
    });
    body["idempotency_token"] = ATTEMPT.into();
    // The format YEAR-MONTH-DAY is validated with the configuration.
    let day: Vec<String> = schedule
        .start_date
        .split('-')
        .map(|part| part.trim_start_matches('0').to_string())
        .collect();
    let values = [
        ("DAG_ID", literal(&dag_id(config).into(), 0)),
        ("DESCRIPTION", literal(&description.into(), 0)),
        ("CRON", literal(&schedule.cron.as_str().into(), 0)),
        ("START_DATE", day.join(", ")),
        ("CATCHUP", literal(&schedule.catchup.into(), 0)),
        ("OWNER", literal(&config.id.as_str().into(), 0)),
        ("RETRIES", schedule.retries.to_string()),
        ("RETRY_DELAY_SECONDS", schedule.retry_delay_seconds.to_string()),
        ("CONNECTION", literal(&CONNECTION.into(), 0)),
        ("POLL_SECONDS", (config.databricks.poll_interval_ms / 1000).max(1).to_string()),
        ("SUBMISSION", literal(&body, 2)),
    ];
    // The template is split only once, so that values are not searched for placeholders.
    TEMPLATE
        .split('@')
        .map(|piece| {
            values
                .iter()
                .find(|(name, _)| *name == piece)
                .map_or(piece, |(_, value)| value.as_str())
        })
        .collect()
}

/// Escapes a string that contains template syntax, so that Airflow does not render it.
fn escaped(text: &str) -> String {
    if text.contains("{{") || text.contains("{%") || text.contains("{#") {
        format!("{{% raw %}}{text}{{% endraw %}}")
    } else {
        text.to_string()
    }
}

/// Applies `change` to all strings of a value, but not to the keys of objects.
fn map_texts(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => change(text).into(),
        Value::Array(items) => items.iter().map(|item| map_texts(item, change)).collect(),
        Value::Object(members) => {
            members.iter().map(|(key, member)| (key.clone(), map_texts(member, change))).collect()
        }
        other => other.clone(),
    }
}

/// Formats a value as a Python literal with this indentation depth.
fn literal(value: &Value, depth: usize) -> String {
    let (inner, outer) = ("    ".repeat(depth + 1), "    ".repeat(depth));
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        // JSON numbers and strings, including escapes, are valid Python literals.
        Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(items) => {
            let items: String = items
                .iter()
                .map(|item| format!("{inner}{},\n", literal(item, depth + 1)))
                .collect();
            format!("[\n{items}{outer}]")
        }
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| {
                format!("{inner}{}: {},\n", Value::from(key.as_str()), literal(value, depth + 1))
            };
            let members: String = members.iter().map(member).collect();
            format!("{{\n{members}{outer}}}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn template_begins_with_the_common_words() {
        assert!(TEMPLATE.starts_with(DAG_BEGINS));
    }

    #[test]
    fn formats_values_as_python_literals() {
        let value = json!({"a": [1, true, null], "b": "say \"é\"\n"});
        assert_eq!(
            literal(&value, 0),
            "{\n    \"a\": [\n        1,\n        True,\n        None,\n    ],\n    \"b\": \"say \\\"é\\\"\\n\",\n}"
        );
    }

    #[test]
    fn escapes_references_to_secrets() {
        let mapped =
            map_texts(&json!({"conf": {"key": "{{secrets/a/b}}", "other": "x"}}), &escaped);
        assert_eq!(
            mapped,
            json!({"conf": {"key": "{% raw %}{{secrets/a/b}}{% endraw %}", "other": "x"}})
        );
    }

    #[test]
    fn run_folder_equals_the_rendered_template() {
        assert_eq!(
            run_folder("scheduled__2026-11-21T00:00:00+00:00"),
            "scheduled__2026-11-21T00-00-00-00-00"
        );
    }
}

//! The DAG's file.

use serde_json::Value;

use crate::base::checksum::sha256;
use crate::base::config::schema::Config;
use crate::spark::databricks::cluster::submission;
use crate::spark::databricks::job::JobFiles;
use crate::spark::schedule::connection::CONNECTION;

/// What names a run's folder of answers, as Airflow fills it in: its id without what no path may hold.
const RUN: &str = "{{ run_id | replace(':', '-') | replace('+', '-') }}";

/// Keeps Databricks from starting an attempt twice where an answer gets lost; each attempt has its own.
const ATTEMPT: &str = "{{ macros.uuid.uuid5(macros.uuid.NAMESPACE_URL, dag.dag_id ~ run_id ~ dag_run.start_date ~ ti.try_number) }}";

const TEMPLATE: &str = include_str!("dag.py");
/// How every DAG begins that pinpipe wrote, of whatever version.
pub const DAG_BEGINS: &str = "\"\"\"Runs pinpipe's batch on Databricks.";

/// The DAG's name in Airflow: `<id>_dag`.
pub fn dag_id(config: &Config) -> String {
    format!("{}_dag", config.id)
}

/// Its file in Airflow's bucket: `dags/<id>_dag.py`.
pub fn dag_key(config: &Config) -> String {
    format!("dags/{}.py", dag_id(config))
}

/// The folder of answers of one run.
pub fn run_folder(run_id: &str) -> String {
    run_id.replace([':', '+'], "-")
}

/// The DAG that runs the job lying in this folder of the workspace.
pub fn rendered_dag(config: &Config, folder: &str) -> String {
    rendered(config, folder, &description(config, folder))
}

/// What the DAG says of itself: a checksum in it tells which of its versions Airflow has read.
pub fn description(config: &Config, folder: &str) -> String {
    let checksum = sha256(rendered(config, folder, "").as_bytes());
    format!(
        "Cleans the lake and answers the questions, on Databricks (definition {})",
        &checksum[..12]
    )
}

fn rendered(config: &Config, folder: &str, description: &str) -> String {
    let wanted = &config.schedule;
    let body = submission(
        config,
        &format!("pinpipe batch {}", config.id),
        &JobFiles::of(folder),
        RUN,
    );
    // The operator's body is a template, but no text of the configuration is one for Airflow to fill in.
    let mut body = map_texts(&body, &|text| {
        if text == RUN {
            text.to_string()
        } else {
            escaped(text)
        }
    });
    body["idempotency_token"] = ATTEMPT.into();
    // The configuration has checked the form: year, month, day.
    let day: Vec<String> = wanted
        .start_date
        .split('-')
        .map(|part| part.trim_start_matches('0').to_string())
        .collect();
    let values = [
        ("DAG_ID", literal(&dag_id(config).into(), 0)),
        ("DESCRIPTION", literal(&description.into(), 0)),
        ("CRON", literal(&wanted.cron.as_str().into(), 0)),
        ("START_DATE", day.join(", ")),
        ("CATCHUP", literal(&wanted.catchup.into(), 0)),
        ("OWNER", literal(&config.id.as_str().into(), 0)),
        ("RETRIES", wanted.retries.to_string()),
        (
            "RETRY_DELAY_SECONDS",
            wanted.retry_delay_seconds.to_string(),
        ),
        ("CONNECTION", literal(&CONNECTION.into(), 0)),
        (
            "POLL_SECONDS",
            (config.databricks.poll_ms / 1000).max(1).to_string(),
        ),
        ("SUBMISSION", literal(&body, 2)),
    ];
    // Piece by piece, so that a value that looks like a name stays as it is.
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

/// A text that Airflow's templates leave as it is.
fn escaped(text: &str) -> String {
    if text.contains("{{") || text.contains("{%") || text.contains("{#") {
        format!("{{% raw %}}{text}{{% endraw %}}")
    } else {
        text.to_string()
    }
}

/// The same value with other texts; names of members stay.
fn map_texts(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => change(text).into(),
        Value::Array(items) => items.iter().map(|item| map_texts(item, change)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, member)| (key.clone(), map_texts(member, change)))
            .collect(),
        other => other.clone(),
    }
}

/// A value as Python writes it, indented like the code around it.
fn literal(value: &Value, depth: usize) -> String {
    let (inner, outer) = ("    ".repeat(depth + 1), "    ".repeat(depth));
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        // JSON's numbers and texts, escapes included, are Python's too.
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
                format!(
                    "{inner}{}: {},\n",
                    Value::from(key.as_str()),
                    literal(value, depth + 1)
                )
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
    fn the_dag_is_known_by_its_beginning() {
        assert!(TEMPLATE.starts_with(DAG_BEGINS));
    }

    #[test]
    fn values_are_written_as_python_writes_them() {
        let value = json!({"a": [1, true, null], "b": "say \"é\"\n"});
        assert_eq!(
            literal(&value, 0),
            "{\n    \"a\": [\n        1,\n        True,\n        None,\n    ],\n    \"b\": \"say \\\"é\\\"\\n\",\n}"
        );
    }

    #[test]
    fn references_to_secrets_are_not_airflows_to_fill_in() {
        let mapped = map_texts(
            &json!({"conf": {"key": "{{secrets/a/b}}", "other": "x"}}),
            &escaped,
        );
        assert_eq!(
            mapped,
            json!({"conf": {"key": "{% raw %}{{secrets/a/b}}{% endraw %}", "other": "x"}})
        );
    }

    #[test]
    fn the_folder_of_a_run_is_what_airflow_makes_of_its_id() {
        assert_eq!(
            run_folder("scheduled__2026-11-21T00:00:00+00:00"),
            "scheduled__2026-11-21T00-00-00-00-00"
        );
    }
}

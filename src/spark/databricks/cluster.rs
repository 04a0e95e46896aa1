//! What a run is asked for: one task, on a cluster of its own or one that is there.

use serde_json::{Value, json};

use crate::base::config::schema::Config;
use crate::spark::databricks::job::JobFiles;

/// Body of `jobs/runs/submit` and of Airflow's operator: the job, told as `parameters` say.
pub fn submission(config: &Config, name: &str, job: &JobFiles, run: &str) -> Value {
    let wanted = &config.databricks;
    let mut task = json!({
        "task_key": "batch",
        "spark_python_task": { "python_file": job.python_file, "source": "WORKSPACE", "parameters": [job.parameters, run] },
    });
    if wanted.cluster_id.is_empty() {
        task["new_cluster"] = new_cluster(config);
    } else {
        task["existing_cluster_id"] = json!(wanted.cluster_id);
    }
    json!({ "run_name": name, "timeout_seconds": wanted.timeout_minutes * 60, "tasks": [task] })
}

fn new_cluster(config: &Config) -> Value {
    let wanted = &config.databricks;
    let mut spark_conf = serde_json::Map::new();
    let mut tags = serde_json::Map::new();
    tags.insert("pinpipe:id".into(), json!(config.id));
    if wanted.workers == 0 {
        spark_conf.insert(
            "spark.databricks.cluster.profile".into(),
            json!("singleNode"),
        );
        spark_conf.insert("spark.master".into(), json!("local[*, 4]"));
        tags.insert("ResourceClass".into(), json!("SingleNode"));
    }
    if !wanted.secret_scope.is_empty() {
        // Databricks puts the secrets in; nobody else sees them.
        for (key, secret) in [
            ("access.key", "aws_access_key_id"),
            ("secret.key", "aws_secret_access_key"),
        ] {
            spark_conf.insert(
                format!("spark.hadoop.fs.s3a.{key}"),
                json!(format!("{{{{secrets/{}/{secret}}}}}", wanted.secret_scope)),
            );
        }
    }
    let mut cluster = json!({
        "spark_version": wanted.spark_version,
        "node_type_id": wanted.node_type,
        "num_workers": wanted.workers,
        "custom_tags": tags,
    });
    if !spark_conf.is_empty() {
        cluster["spark_conf"] = Value::Object(spark_conf);
    }
    if !wanted.instance_profile_arn.is_empty() {
        cluster["aws_attributes"] = json!({ "instance_profile_arn": wanted.instance_profile_arn });
    }
    if !wanted.data_security_mode.is_empty() {
        cluster["data_security_mode"] = json!(wanted.data_security_mode);
    }
    cluster
}

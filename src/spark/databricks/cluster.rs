//! Request body of a run: one task, on a new job cluster or an existing cluster.

use serde_json::{Value, json};

use crate::base::config::schema::Config;
use crate::spark::databricks::job::JobFiles;

/// Returns the body of `jobs/runs/submit`, which is also that of Airflow's operator. `run` is the
/// subfolder for the results.
pub fn submission(config: &Config, name: &str, job: &JobFiles, run: &str) -> Value {
    let settings = &config.databricks;
    let mut task = json!({
        "task_key": "batch",
        "spark_python_task": { "python_file": job.python_file, "source": "WORKSPACE", "parameters": [job.parameters, run] },
    });
    if settings.cluster_id.is_empty() {
        task["new_cluster"] = new_cluster(config);
    } else {
        task["existing_cluster_id"] = json!(settings.cluster_id);
    }
    json!({ "run_name": name, "timeout_seconds": settings.timeout_minutes * 60, "tasks": [task] })
}

fn new_cluster(config: &Config) -> Value {
    let settings = &config.databricks;
    let mut spark_conf = serde_json::Map::new();
    let mut tags = serde_json::Map::new();
    tags.insert("pinpipe:id".into(), json!(config.id));
    if settings.workers == 0 {
        spark_conf.insert("spark.databricks.cluster.profile".into(), json!("singleNode"));
        spark_conf.insert("spark.master".into(), json!("local[*, 4]"));
        tags.insert("ResourceClass".into(), json!("SingleNode"));
    }
    if !settings.secret_scope.is_empty() {
        // Databricks resolves these references; pinpipe never reads the secrets.
        for (key, secret) in
            [("access.key", "aws_access_key_id"), ("secret.key", "aws_secret_access_key")]
        {
            spark_conf.insert(
                format!("spark.hadoop.fs.s3a.{key}"),
                json!(format!("{{{{secrets/{}/{secret}}}}}", settings.secret_scope)),
            );
        }
    }
    let mut cluster = json!({
        "spark_version": settings.spark_version,
        "node_type_id": settings.node_type,
        "num_workers": settings.workers,
        "custom_tags": tags,
    });
    if !spark_conf.is_empty() {
        cluster["spark_conf"] = Value::Object(spark_conf);
    }
    if !settings.instance_profile_arn.is_empty() {
        cluster["aws_attributes"] =
            json!({ "instance_profile_arn": settings.instance_profile_arn });
    }
    if !settings.data_security_mode.is_empty() {
        cluster["data_security_mode"] = json!(settings.data_security_mode);
    }
    cluster
}

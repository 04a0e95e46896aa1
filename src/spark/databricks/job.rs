//! The job's files in the workspace.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::config::schema::Config;
use crate::base::error::{ErrorContext, Result};
use crate::clients::databricks::{ApiError, Databricks};
use crate::spark::job::{JOB, Parameters};

/// Where the job lies, as a run of it sees the workspace.
#[derive(Debug, Clone)]
pub struct JobFiles {
    pub python_file: String,
    pub parameters: String,
}

impl JobFiles {
    /// Those of a folder of the workspace.
    pub fn of(folder: &str) -> Self {
        Self {
            python_file: format!("/Workspace{folder}/{JOB_FILE}"),
            parameters: format!("/Workspace{folder}/{PARAMETERS_FILE}"),
        }
    }
}

const JOB_FILE: &str = "job.py";
const PARAMETERS_FILE: &str = "parameters.json";

/// The folder for this pipeline's jobs: the configured one, or one in the caller's own.
///
/// # Errors
/// Databricks does not say who is calling.
pub async fn job_folder(client: &Databricks, config: &Config) -> Result<String> {
    #[derive(Deserialize)]
    struct Me {
        #[serde(rename = "userName")]
        user_name: String,
    }
    let folder = &config.databricks.folder;
    if !folder.is_empty() {
        return Ok(format!("{}/{}", folder.trim_end_matches('/'), config.id));
    }
    let me: Me = client.get("/api/2.0/preview/scim/v2/Me", &[]).await?;
    Ok(format!("/Users/{}/pinpipe/{}", me.user_name, config.id))
}

/// The folder of the job that Airflow runs.
///
/// # Errors
/// As [`job_folder`].
pub async fn scheduled_folder(client: &Databricks, config: &Config) -> Result<String> {
    Ok(format!("{}/scheduled", job_folder(client, config).await?))
}

/// What the folder is to hold: each file's name and content.
fn files(parameters: &Parameters) -> Result<[(&'static str, Vec<u8>); 2]> {
    let told = serde_json::to_vec_pretty(parameters)
        .context(|| "cannot write down the job's parameters")?;
    Ok([(JOB_FILE, JOB.as_bytes().to_vec()), (PARAMETERS_FILE, told)])
}

/// Puts the job there, over what was there.
///
/// # Errors
/// Databricks refuses.
pub async fn upload_job(
    client: &Databricks,
    folder: &str,
    parameters: &Parameters,
) -> Result<JobFiles> {
    let _: Value = client
        .post("/api/2.0/workspace/mkdirs", &json!({ "path": folder }))
        .await?;
    for (name, content) in files(parameters)? {
        // RAW: a file as it is, where other formats would make a notebook of it.
        let import = json!({ "path": format!("{folder}/{name}"), "format": "RAW", "overwrite": true, "content": STANDARD.encode(content) });
        let _: Value = client.post("/api/2.0/workspace/import", &import).await?;
    }
    Ok(JobFiles::of(folder))
}

/// What is in the way of running the job as it is wanted: files that are missing or differ.
/// `None`: there is no folder.
///
/// # Errors
/// Databricks refuses.
pub async fn job_differences(
    client: &Databricks,
    folder: &str,
    parameters: &Parameters,
) -> Result<Option<Vec<String>>> {
    #[derive(Deserialize)]
    struct Exported {
        #[serde(default)]
        content: String,
    }
    let mut differing = Vec::new();
    let mut is_there = false;
    for (name, content) in files(parameters)? {
        let path = format!("{folder}/{name}");
        match client
            .get::<Exported>(
                "/api/2.0/workspace/export",
                &[("path", &path), ("format", "AUTO")],
            )
            .await
        {
            Ok(found) => {
                is_there = true;
                if STANDARD.decode(found.content).ok().as_deref() != Some(&content) {
                    differing.push(format!("`{name}` is another version's"));
                }
            }
            Err(refused) if is_missing(&refused) => differing.push(format!("`{name}` is missing")),
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(is_there.then_some(differing))
}

/// Removes the folder. `false`: it was not there.
///
/// # Errors
/// Databricks refuses.
pub async fn remove_job(client: &Databricks, folder: &str) -> Result<bool> {
    match client
        .post::<Value>(
            "/api/2.0/workspace/delete",
            &json!({ "path": folder, "recursive": true }),
        )
        .await
    {
        Ok(_) => Ok(true),
        Err(refused) if is_missing(&refused) => Ok(false),
        Err(refused) => Err(refused.into()),
    }
}

fn is_missing(refused: &ApiError) -> bool {
    refused.code == "RESOURCE_DOES_NOT_EXIST"
}

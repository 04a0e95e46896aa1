//! Files of the job in the workspace.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::config::schema::Config;
use crate::base::error::{ErrorContext, Result};
use crate::clients::databricks::{ApiError, Databricks};
use crate::spark::job::{JOB, Parameters};

/// Paths of the job's files, as a run sees them.
#[derive(Debug, Clone)]
pub struct JobFiles {
    pub python_file: String,
    pub parameters: String,
}

impl JobFiles {
    /// Paths in a workspace folder.
    pub fn of(folder: &str) -> Self {
        Self {
            python_file: format!("/Workspace{folder}/{JOB_FILE}"),
            parameters: format!("/Workspace{folder}/{PARAMETERS_FILE}"),
        }
    }
}

const JOB_FILE: &str = "job.py";
const PARAMETERS_FILE: &str = "parameters.json";

/// Returns the workspace folder for the jobs of this pipeline: below `databricks.folder`, or below
/// the home folder of the current user.
///
/// # Errors
/// The current user cannot be determined.
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

/// Returns the workspace folder of the scheduled job.
///
/// # Errors
/// As [`job_folder`].
pub async fn scheduled_folder(client: &Databricks, config: &Config) -> Result<String> {
    Ok(format!("{}/scheduled", job_folder(client, config).await?))
}

/// Returns name and content of each file of the job.
fn files(parameters: &Parameters) -> Result<[(&'static str, Vec<u8>); 2]> {
    let json = serde_json::to_vec_pretty(parameters)
        .context(|| "cannot serialise the parameters of the job")?;
    Ok([(JOB_FILE, JOB.as_bytes().to_vec()), (PARAMETERS_FILE, json)])
}

/// Uploads the job and overwrites existing files.
///
/// # Errors
/// Databricks refuses the request.
pub async fn upload_job(
    client: &Databricks,
    folder: &str,
    parameters: &Parameters,
) -> Result<JobFiles> {
    let _: Value = client.post("/api/2.0/workspace/mkdirs", &json!({ "path": folder })).await?;
    for (name, content) in files(parameters)? {
        // RAW imports a plain file; other formats create a notebook.
        let import = json!({ "path": format!("{folder}/{name}"), "format": "RAW", "overwrite": true, "content": STANDARD.encode(content) });
        let _: Value = client.post("/api/2.0/workspace/import", &import).await?;
    }
    Ok(JobFiles::of(folder))
}

/// Returns the drift of the uploaded job: files that are missing or differ. Returns `None` if the
/// folder contains none of them.
///
/// # Errors
/// Databricks refuses the request.
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
    let mut differences = Vec::new();
    let mut exists = false;
    for (name, content) in files(parameters)? {
        let path = format!("{folder}/{name}");
        match client
            .get::<Exported>("/api/2.0/workspace/export", &[("path", &path), ("format", "AUTO")])
            .await
        {
            Ok(exported) => {
                exists = true;
                if STANDARD.decode(exported.content).ok().as_deref() != Some(&content) {
                    differences.push(format!("`{name}` differs"));
                }
            }
            Err(error) if is_missing(&error) => differences.push(format!("`{name}` is missing")),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(exists.then_some(differences))
}

/// Deletes the folder. Returns `false` if it did not exist.
///
/// # Errors
/// Databricks refuses the request.
pub async fn remove_job(client: &Databricks, folder: &str) -> Result<bool> {
    match client
        .post::<Value>("/api/2.0/workspace/delete", &json!({ "path": folder, "recursive": true }))
        .await
    {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_missing(error: &ApiError) -> bool {
    error.code == "RESOURCE_DOES_NOT_EXIST"
}

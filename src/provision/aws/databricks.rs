//! The job's files in the Databricks workspace, as Airflow's DAG runs them.

use std::rc::Rc;

use async_trait::async_trait;

use crate::base::error::Result;
use crate::clients::databricks::Databricks;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names::BucketUse;
use crate::provision::resource::{Observation, Resource};
use crate::spark::databricks::job::{job_differences, remove_job, scheduled_folder, upload_job};
use crate::spark::job::Parameters;

const KEY: &str = keys::DATABRICKS_JOB;

pub struct DatabricksJob {
    pub account: Rc<Account>,
}

impl DatabricksJob {
    /// The workspace, and the folder in it.
    async fn place(&self) -> Result<(Databricks, String)> {
        let client = Databricks::open(&self.account.config).map_err(|error| {
            let hint = error.hint_text().unwrap_or_default().to_string();
            error.hint(format!("{hint}; `schedule.enabled = false` makes Airflow without a schedule, `--skip {KEY}` leaves the job alone"))
        })?;
        let folder = scheduled_folder(&client, &self.account.config).await?;
        Ok((client, folder))
    }

    /// Where it lies as far as is known.
    async fn known_folder(&self) -> Option<String> {
        self.account.state.output(KEY, "folder").await
    }
}

#[async_trait(?Send)]
impl Resource for DatabricksJob {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "databricks-job"
    }

    fn name(&self) -> String {
        format!("{}-batch", self.account.config.id)
    }

    fn depends_on(&self) -> Vec<String> {
        vec![BucketUse::Lake.key().into()]
    }

    fn is_enabled(&self) -> bool {
        self.account.config.has_schedule()
    }

    async fn read(&self) -> Result<Observation> {
        let (client, folder) = match (self.place().await, self.known_folder().await) {
            (Ok(place), _) => place,
            // Enough for what is to be removed; making or changing it needs the workspace.
            (Err(error), Some(known)) => {
                return Ok(Observation::in_sync(format!(
                    "{known}, as far as is known: {error}"
                )));
            }
            (Err(error), None) => return Err(error),
        };
        if let Some(known) = self.known_folder().await.filter(|known| *known != folder) {
            return Ok(Observation::from_drift(
                vec![format!("it lies in {known}, not in {folder}")],
                "",
            ));
        }
        let Some(differences) = job_differences(
            &client,
            &folder,
            &Parameters::scheduled(&self.account.config)?,
        )
        .await?
        else {
            return Ok(Observation::missing());
        };
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[("folder", &folder)])
            .await?;
        Ok(Observation::from_drift(
            differences,
            format!("{folder} at {}", client.host()),
        ))
    }

    async fn create(&self) -> Result<()> {
        let (client, folder) = self.place().await?;
        upload_job(
            &client,
            &folder,
            &Parameters::scheduled(&self.account.config)?,
        )
        .await?;
        if let Some(known) = self.known_folder().await.filter(|known| *known != folder) {
            remove_job(&client, &known).await?;
        }
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[("folder", &folder)])
            .await
    }

    async fn update(&self) -> Result<()> {
        self.create().await
    }

    async fn delete(&self) -> Result<bool> {
        let (client, folder) = match (self.place().await, self.known_folder().await) {
            (Ok((client, folder)), known) => (client, known.unwrap_or(folder)),
            (Err(error), Some(known)) => {
                // Nothing else should go on costing money for some files that cost none.
                tracing::warn!("`{known}` stays in the Databricks workspace: {error}");
                return Ok(false);
            }
            (Err(error), None) => return Err(error),
        };
        remove_job(&client, &folder).await
    }
}

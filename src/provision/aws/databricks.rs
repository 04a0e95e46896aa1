//! Files of the batch job in the Databricks workspace, which Airflow's DAG runs.

use std::rc::Rc;

use async_trait::async_trait;

use crate::base::error::Result;
use crate::clients::databricks::Databricks;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::outputs;
use crate::provision::resource::{Difference, Observation, Resource};
use crate::provision::state::output::ObservedOutputs;
use crate::spark::databricks::job::{job_differences, remove_job, scheduled_folder, upload_job};
use crate::spark::job::Parameters;

const KEY: &str = keys::DATABRICKS_JOB;

pub struct DatabricksJob {
    pub account: Rc<Account>,
}

impl DatabricksJob {
    /// Opens the workspace and returns it with the job's folder.
    ///
    /// # Errors
    /// The workspace or its credentials are unknown; the workspace cannot be reached.
    async fn workspace(&self) -> Result<(Databricks, String)> {
        let client = Databricks::open(&self.account.config).map_err(|error| {
            let hint = error.hint_text().unwrap_or_default().to_string();
            error.hint(format!(
                "{hint}; `schedule.enabled = false` creates Airflow without a schedule, \
                 `--skip {KEY}` skips the job"
            ))
        })?;
        let folder = scheduled_folder(&client, &self.account.config).await?;
        Ok((client, folder))
    }

    /// Folder of the job according to the state.
    async fn recorded_folder(&self) -> Option<String> {
        self.account.state.output(&outputs::DATABRICKS_FOLDER).await
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

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let (client, folder) = match (self.workspace().await, self.recorded_folder().await) {
            (Ok(workspace), _) => workspace,
            // The folder in the state is enough to plan a deletion. Creating or updating the job
            // requires the workspace.
            (Err(error), Some(recorded)) => {
                return Ok(Observation::in_sync(format!("{recorded}, not verified: {error}")));
            }
            (Err(error), None) => return Err(error),
        };
        if let Some(recorded) = self.recorded_folder().await.filter(|recorded| *recorded != folder)
        {
            return Ok(Observation::compared(
                vec![Difference::field("folder", recorded, folder)],
                "",
            ));
        }
        let Some(differences) =
            job_differences(&client, &folder, &Parameters::scheduled(&self.account.config)?)
                .await?
        else {
            return Ok(Observation::missing());
        };
        observed.found(self.name()).set(&outputs::DATABRICKS_FOLDER, folder.as_str());
        Ok(Observation::compared(differences, format!("{folder} at {}", client.host())))
    }

    async fn create(&self) -> Result<()> {
        let (client, folder) = self.workspace().await?;
        upload_job(&client, &folder, &Parameters::scheduled(&self.account.config)?).await?;
        if let Some(recorded) = self.recorded_folder().await.filter(|recorded| *recorded != folder)
        {
            remove_job(&client, &recorded).await?;
        }
        self.account.state.record(&self.name(), &outputs::DATABRICKS_FOLDER, folder).await
    }

    async fn update(&self) -> Result<()> {
        self.create().await
    }

    async fn delete(&self) -> Result<bool> {
        let (client, folder) = match (self.workspace().await, self.recorded_folder().await) {
            (Ok((client, folder)), recorded) => (client, recorded.unwrap_or(folder)),
            (Err(error), Some(recorded)) => {
                // The files are free of charge, so they must not block the deletion of billed
                // resources.
                tracing::warn!(
                    "`{recorded}` is not deleted from the Databricks workspace: {error}"
                );
                return Ok(false);
            }
            (Err(error), None) => return Err(error),
        };
        remove_job(&client, &folder).await
    }
}

//! The DAG that runs batch on Databricks, as a file in Airflow's bucket.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;

use crate::base::error::{ErrorContext, Result};
use crate::clients::aws::call::{CallContext, code};
use crate::clients::databricks::Databricks;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::outputs::is_airflow_known;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;
use crate::spark::databricks::job::scheduled_folder;
use crate::spark::schedule::dag::{DAG_BEGINS, dag_key, rendered_dag};

const KEY: &str = keys::AIRFLOW_DAG;

pub struct Dag {
    pub account: Rc<Account>,
}

impl Dag {
    fn bucket(&self) -> String {
        BucketUse::Airflow.name(&self.account.config)
    }

    fn object(&self) -> String {
        dag_key(&self.account.config)
    }

    fn display_name(&self) -> String {
        format!("`{}`", self.name())
    }

    async fn content(&self) -> Result<String> {
        let client = Databricks::open(&self.account.config)?;
        Ok(rendered_dag(
            &self.account.config,
            &scheduled_folder(&client, &self.account.config).await?,
        ))
    }
}

#[async_trait(?Send)]
impl Resource for Dag {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "airflow-dag"
    }

    fn name(&self) -> String {
        format!("s3://{}/{}", self.bucket(), self.object())
    }

    fn depends_on(&self) -> Vec<String> {
        [BucketUse::Airflow.key(), keys::DATABRICKS_JOB].map(String::from).to_vec()
    }

    fn is_enabled(&self) -> bool {
        self.account.config.has_schedule()
    }

    async fn may_be_orphaned(&self) -> bool {
        is_airflow_known(&self.account).await
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let response = match self
            .account
            .s3
            .get_object()
            .bucket(self.bucket())
            .key(self.object())
            .send()
            .await
        {
            Ok(response) => response,
            Err(error) if matches!(code(&error), "NoSuchKey" | "NoSuchBucket") => {
                return Ok(Observation::missing());
            }
            Err(error) => return Err(error.call_context("s3:GetObject", &self.display_name())),
        };
        let text = response
            .body
            .collect()
            .await
            .context(|| format!("cannot read {}", self.display_name()))?
            .into_bytes();
        if !self.is_enabled()
            && self.account.is_unrecorded(KEY).await
            && !text.starts_with(DAG_BEGINS.as_bytes())
        {
            // Not managed by pinpipe: the object has no tags, and its text does not begin like a
            // DAG of pinpipe.
            return Ok(Observation::missing());
        }
        observed.found(self.name());
        // Without Databricks credentials the DAG can still be shown and deleted.
        let Ok(content) = self.content().await else {
            return Ok(Observation::in_sync("exists, content not compared"));
        };
        let is_current = content.as_bytes() == text;
        let differences = if is_current {
            Vec::new()
        } else {
            vec!["the DAG was edited or comes from another version of pinpipe"]
        };
        Ok(Observation::compared(
            differences,
            format!("{}, {}", self.account.config.schedule.cron, self.object()),
        ))
    }

    async fn create(&self) -> Result<()> {
        let content = self.content().await?;
        let request = self
            .account
            .s3
            .put_object()
            .bucket(self.bucket())
            .key(self.object())
            .content_type("text/x-python");
        request
            .body(ByteStream::from(content.into_bytes()))
            .send()
            .await
            .call_context("s3:PutObject", &self.display_name())?;
        self.account.state.record_entry(KEY, &self.name()).await
    }

    async fn update(&self) -> Result<()> {
        self.create().await
    }

    async fn delete(&self) -> Result<bool> {
        match self.account.s3.delete_object().bucket(self.bucket()).key(self.object()).send().await
        {
            Err(error) if code(&error) == "NoSuchBucket" => Ok(false),
            result => result.map(|_| true).call_context("s3:DeleteObject", &self.display_name()),
        }
    }
}

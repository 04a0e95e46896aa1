//! The Python requirements of Airflow, as a file in Airflow's bucket.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;

use crate::base::error::{ErrorContext, Result};
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::object_keys::REQUIREMENTS;
use crate::provision::aws::outputs;
use crate::provision::aws::outputs::is_airflow_known;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::AIRFLOW_REQUIREMENTS;
/// Folder of the DAGs in Airflow's bucket.
pub const DAG_FOLDER: &str = "dags";

pub struct Requirements {
    pub account: Rc<Account>,
}

impl Requirements {
    fn bucket(&self) -> String {
        BucketUse::Airflow.name(&self.account.config)
    }

    fn content(&self) -> String {
        self.account.config.airflow.requirements.iter().map(|line| format!("{line}\n")).collect()
    }

    fn display_name(&self) -> String {
        format!("`{}`", self.name())
    }
}

#[async_trait(?Send)]
impl Resource for Requirements {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "airflow-requirements"
    }

    fn name(&self) -> String {
        format!("s3://{}/{REQUIREMENTS}", self.bucket())
    }

    fn depends_on(&self) -> Vec<String> {
        vec![BucketUse::Airflow.key().into()]
    }

    fn is_enabled(&self) -> bool {
        self.account.config.airflow.enabled
    }

    async fn may_be_orphaned(&self) -> bool {
        is_airflow_known(&self.account).await
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let response =
            match self.account.s3.get_object().bucket(self.bucket()).key(REQUIREMENTS).send().await
            {
                Ok(response) => response,
                Err(error) if matches!(code(&error), "NoSuchKey" | "NoSuchBucket") => {
                    return Ok(Observation::missing());
                }
                Err(error) => {
                    return Err(error.call_context("s3:GetObject", &self.display_name()));
                }
            };
        let version = response.version_id().map(String::from);
        let text = response
            .body
            .collect()
            .await
            .context(|| format!("cannot read {}", self.display_name()))?
            .into_bytes();
        if !self.is_enabled()
            && self.account.is_unrecorded(KEY).await
            && text != self.content().as_bytes()
        {
            // Not managed by pinpipe: the object has no tags, and its content is different.
            return Ok(Observation::missing());
        }
        if let Some(version) = version {
            observed.found(self.name()).set(&outputs::REQUIREMENTS_VERSION, version);
        }
        if text != self.content().as_bytes() {
            return Ok(Observation::compared(vec!["the file lists other packages"], ""));
        }
        Ok(Observation::in_sync(format!(
            "{} packages",
            self.account.config.airflow.requirements.len()
        )))
    }

    async fn create(&self) -> Result<()> {
        let request = self
            .account
            .s3
            .put_object()
            .bucket(self.bucket())
            .key(REQUIREMENTS)
            .content_type("text/plain");
        let response = request
            .body(ByteStream::from(self.content().into_bytes()))
            .send()
            .await
            .call_context("s3:PutObject", &self.display_name())?;
        self.account
            .state
            .record(
                &self.name(),
                &outputs::REQUIREMENTS_VERSION,
                response.version_id().unwrap_or_default(),
            )
            .await
    }

    async fn update(&self) -> Result<()> {
        self.create().await
    }

    async fn delete(&self) -> Result<bool> {
        match self.account.s3.delete_object().bucket(self.bucket()).key(REQUIREMENTS).send().await {
            Err(error) if code(&error) == "NoSuchBucket" => Ok(false),
            result => result.map(|_| true).call_context("s3:DeleteObject", &self.display_name()),
        }
    }
}

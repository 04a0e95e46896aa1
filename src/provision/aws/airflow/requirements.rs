//! The Python packages that Airflow installs, as a file in its bucket.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;

use crate::base::error::{OrFail, Result};
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::object_keys::REQUIREMENTS;
use crate::provision::aws::outputs::is_airflow_known;
use crate::provision::resource::{Reading, Resource};

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
        self.account
            .config
            .airflow
            .requirements
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn what(&self) -> String {
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

    fn needs(&self) -> Vec<String> {
        vec![BucketUse::Airflow.key().into()]
    }

    fn is_wanted(&self) -> bool {
        self.account.config.airflow.enabled
    }

    async fn is_suspected(&self) -> bool {
        is_airflow_known(&self.account).await
    }

    async fn read(&self) -> Result<Reading> {
        let found = match self
            .account
            .s3
            .get_object()
            .bucket(self.bucket())
            .key(REQUIREMENTS)
            .send()
            .await
        {
            Ok(found) => found,
            Err(error) if matches!(code(&error), "NoSuchKey" | "NoSuchBucket") => {
                return Ok(Reading::missing());
            }
            Err(error) => return Err(failed(Call("s3:GetObject", &self.what()), &error)),
        };
        let version = found.version_id().map(String::from);
        let text = found
            .body
            .collect()
            .await
            .or_fail(|| format!("cannot read {}", self.what()))?
            .into_bytes();
        if !self.is_wanted()
            && self.account.is_forgotten(KEY).await
            && text != self.content().as_bytes()
        {
            // Somebody else's: an object has no tags to tell.
            return Ok(Reading::missing());
        }
        if let Some(version) = version {
            self.account
                .state
                .note(KEY, &self.name(), &[("version", &version)])
                .await?;
        }
        if text != self.content().as_bytes() {
            return Ok(Reading::compared(
                vec!["it asks for other packages".into()],
                "",
            ));
        }
        Ok(Reading::good(format!(
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
        let put = request
            .body(ByteStream::from(self.content().into_bytes()))
            .send()
            .await;
        let put = put.map_err(|error| failed(Call("s3:PutObject", &self.what()), &error))?;
        self.account
            .state
            .note(
                KEY,
                &self.name(),
                &[("version", put.version_id().unwrap_or_default())],
            )
            .await
    }

    async fn update(&self) -> Result<()> {
        self.create().await
    }

    async fn delete(&self) -> Result<bool> {
        match self
            .account
            .s3
            .delete_object()
            .bucket(self.bucket())
            .key(REQUIREMENTS)
            .send()
            .await
        {
            Err(error) if code(&error) == "NoSuchBucket" => Ok(false),
            removed => removed
                .map(|_| true)
                .map_err(|error| failed(Call("s3:DeleteObject", &self.what()), &error)),
        }
    }
}

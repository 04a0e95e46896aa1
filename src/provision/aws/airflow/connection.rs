//! Airflow's connection to Databricks, which is contained in the environment.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_mwaa::types::EnvironmentStatus;

use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;
use crate::spark::schedule::connection::{CONNECTION, Connection};

const KEY: &str = keys::AIRFLOW_CONNECTION;

pub struct AirflowConnection {
    pub account: Rc<Account>,
}

impl AirflowConnection {
    fn connection(&self) -> Connection<'_> {
        Connection::new(&self.account.config, self.account.mwaa.clone())
    }

    /// Whether the environment exists and its API can be called.
    async fn has_environment(&self) -> Result<bool> {
        let name = self.account.config.airflow_name();
        let status = match self.account.mwaa.get_environment().name(&name).send().await {
            Ok(response) => response.environment.and_then(|environment| environment.status),
            Err(error) if code(&error) == "ResourceNotFoundException" => None,
            Err(error) => {
                return Err(error.call_context(
                    "airflow:GetEnvironment",
                    &format!("Airflow environment `{name}`"),
                ));
            }
        };
        Ok(matches!(status, Some(EnvironmentStatus::Available | EnvironmentStatus::Updating)))
    }
}

#[async_trait(?Send)]
impl Resource for AirflowConnection {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "airflow-connection"
    }

    fn name(&self) -> String {
        CONNECTION.into()
    }

    fn depends_on(&self) -> Vec<String> {
        vec![keys::AIRFLOW.into()]
    }

    fn replaced_with(&self) -> Vec<String> {
        vec![keys::AIRFLOW.into()]
    }

    fn contained_in(&self) -> Option<String> {
        Some(keys::AIRFLOW.into())
    }

    fn is_enabled(&self) -> bool {
        self.account.config.has_schedule()
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        if !self.has_environment().await? {
            return Ok(Observation::missing());
        }
        let connection = self.connection();
        let Some(found) = connection.find().await? else {
            return Ok(Observation::missing());
        };
        if Connection::is_example(&found) {
            return Ok(Observation::compared(
                vec!["the connection is Airflow's default, without a workspace"],
                "",
            ));
        }
        let host = found["host"].as_str().unwrap_or("an unknown host").to_string();
        if !connection.is_managed(&found) {
            // A connection that the user created is used unchanged.
            return Ok(Observation::existing(format!("to {host}, not managed by pinpipe")));
        }
        observed.found(self.name());
        Ok(Observation::compared(connection.differences(&found)?, format!("to {host}")))
    }

    async fn create(&self) -> Result<()> {
        self.connection().create().await?;
        self.account.state.record_entry(KEY, &self.name()).await
    }

    async fn update(&self) -> Result<()> {
        self.connection().update().await
    }

    async fn delete(&self) -> Result<bool> {
        let connection = self.connection();
        if !self.has_environment().await?
            || connection.find().await?.is_none_or(|found| !connection.is_managed(&found))
        {
            return Ok(false);
        }
        connection.delete().await
    }
}

//! Airflow's connection to Databricks, which lives inside the environment.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_mwaa::types::EnvironmentStatus;

use super::{Reading, Resource, airflow};
use crate::aws::{Call, code, failed};
use crate::error::Result;
use crate::provision::account::Account;
use crate::spark::{CONNECTION, Connection};

pub const KEY: &str = "airflow-connection";

pub struct AirflowConnection {
    pub account: Rc<Account>,
}

impl AirflowConnection {
    fn connection(&self) -> Connection<'_> {
        Connection::new(&self.account.config, self.account.mwaa.clone())
    }

    /// Whether there is an environment that answers.
    async fn has_environment(&self) -> Result<bool> {
        let name = self.account.config.airflow_name();
        let status = match self.account.mwaa.get_environment().name(&name).send().await {
            Ok(found) => found.environment.and_then(|environment| environment.status),
            Err(error) if code(&error) == "ResourceNotFoundException" => None,
            Err(error) => return Err(failed(Call("airflow:GetEnvironment", &format!("Airflow environment `{name}`")), &error)),
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

    fn needs(&self) -> Vec<String> {
        vec![airflow::KEY.into()]
    }

    fn falls_with(&self) -> Vec<String> {
        vec![airflow::KEY.into()]
    }

    fn lies_in(&self) -> Option<String> {
        Some(airflow::KEY.into())
    }

    fn is_wanted(&self) -> bool {
        self.account.config.has_schedule()
    }

    async fn read(&self) -> Result<Reading> {
        if !self.has_environment().await? {
            return Ok(Reading::missing());
        }
        let connection = self.connection();
        let Some(found) = connection.find().await? else { return Ok(Reading::missing()) };
        if Connection::is_example(&found) {
            return Ok(Reading::compared(vec!["it is Airflow's own example, which leads nowhere".into()], ""));
        }
        let host = found["host"].as_str().unwrap_or("nowhere").to_string();
        if !connection.is_ours(&found) {
            // Somebody's own does as well; it is theirs to keep right.
            return Ok(Reading::found(format!("to {host}, made by somebody else")));
        }
        self.account.state.note(KEY, &self.name(), &[]).await?;
        Ok(Reading::compared(connection.differences(&found)?, format!("to {host}")))
    }

    async fn create(&self) -> Result<()> {
        self.connection().create().await?;
        self.account.state.note(KEY, &self.name(), &[]).await
    }

    async fn update(&self) -> Result<()> {
        self.connection().update().await
    }

    async fn delete(&self) -> Result<bool> {
        let connection = self.connection();
        if !self.has_environment().await? || connection.find().await?.is_none_or(|found| !connection.is_ours(&found)) {
            return Ok(false);
        }
        connection.delete().await
    }
}

//! Pauses, resumes and restarts the connector on MSK Connect.

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::output::Printer;
use crate::clients::aws::call::CallContext;
use crate::provision::aws::connect::connector::Connector;
use crate::provision::engine::session::{Purpose, Session};

/// Operation on the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectorOperation {
    Pause,
    Resume,
    Restart,
}

/// Starts the operation and waits until it completes. Returns the change: `paused`, `resumed` or
/// `restarted`; `unchanged` if no AWS account is used.
///
/// # Errors
/// The connector does not exist; its state does not permit the operation; the operation fails.
pub async fn operate_connector(
    config: &Config,
    operation: ConnectorOperation,
    printer: &Printer,
) -> Result<&'static str> {
    let progress = printer.activity("connector");
    let session = Session::open(config, Purpose::Change, progress.clone()).await?;
    let outcome = session.run_until_cancelled(operate(&session, operation)).await;
    progress.finish();
    session.close().await;
    outcome
}

async fn operate(session: &Session, operation: ConnectorOperation) -> Result<&'static str> {
    let Some(account) = &session.account else {
        return Ok("unchanged");
    };
    let connector = Connector { account: account.clone() };
    let name = account.config.connector_name();
    let description = connector.find().await?.ok_or_else(|| {
        Error::failed(format!("connector `{name}` does not exist"))
            .hint("create the connector with `pinpipe connector create`")
    })?;
    let (arn, label) =
        (description.connector_arn().unwrap_or_default(), format!("connector `{name}`"));
    let client = &account.connect;
    let (change, operation_arn) = match operation {
        ConnectorOperation::Pause => {
            let response = client.pause_connector().connector_arn(arn).send().await;
            let operation = response.call_context("kafkaconnect:PauseConnector", &label)?;
            ("paused", operation.connector_operation_arn)
        }
        ConnectorOperation::Resume => {
            let response = client.resume_connector().connector_arn(arn).send().await;
            let operation = response.call_context("kafkaconnect:ResumeConnector", &label)?;
            ("resumed", operation.connector_operation_arn)
        }
        ConnectorOperation::Restart => {
            let response = client.restart_connector().connector_arn(arn).send().await;
            let operation = response.call_context("kafkaconnect:RestartConnector", &label)?;
            ("restarted", operation.connector_operation_arn)
        }
    };
    connector.follow(&operation_arn.unwrap_or_default()).await?;
    Ok(change)
}

//! Pausing, resuming and restarting the connector on MSK Connect.

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::output::Printer;
use crate::clients::aws::call::{Call, failed};
use crate::provision::aws::connect::connector::Connector;
use crate::provision::engine::session::{Purpose, Session};

/// What to do with the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectorOperation {
    Pause,
    Resume,
    Restart,
}

/// Begins it and waits until it is done. Returns what was done, for people.
///
/// # Errors
/// There is no connector; it is in no state for it.
pub async fn operate_connector(
    config: &Config,
    operation: ConnectorOperation,
    printer: &Printer,
) -> Result<&'static str> {
    let progress = printer.activity("connector");
    let session = Session::open(config, Purpose::Change, progress.clone()).await?;
    let outcome = session
        .run_until_cancelled(operate(&session, operation))
        .await;
    progress.finish();
    session.close().await;
    outcome
}

async fn operate(session: &Session, operation: ConnectorOperation) -> Result<&'static str> {
    let Some(account) = &session.account else {
        return Ok("kept");
    };
    let connector = Connector {
        account: account.clone(),
    };
    let name = account.config.connector_name();
    let found = connector.find().await?.ok_or_else(|| {
        Error::failed(format!("there is no connector `{name}`"))
            .hint("`pinpipe connector create` makes it")
    })?;
    let (arn, what) = (
        found.connector_arn().unwrap_or_default(),
        format!("connector `{name}`"),
    );
    let client = &account.connect;
    let (done, operation) = match operation {
        ConnectorOperation::Pause => {
            let begun = client.pause_connector().connector_arn(arn).send().await;
            let begun = begun
                .map_err(|error| failed(Call("kafkaconnect:PauseConnector", &what), &error))?;
            ("paused", begun.connector_operation_arn)
        }
        ConnectorOperation::Resume => {
            let begun = client.resume_connector().connector_arn(arn).send().await;
            let begun = begun
                .map_err(|error| failed(Call("kafkaconnect:ResumeConnector", &what), &error))?;
            ("resumed", begun.connector_operation_arn)
        }
        ConnectorOperation::Restart => {
            let begun = client.restart_connector().connector_arn(arn).send().await;
            let begun = begun
                .map_err(|error| failed(Call("kafkaconnect:RestartConnector", &what), &error))?;
            ("restarted", begun.connector_operation_arn)
        }
    };
    connector.follow(&operation.unwrap_or_default()).await?;
    Ok(done)
}

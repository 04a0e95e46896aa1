//! Pausing, resuming and restarting the connector on MSK Connect.

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::output::Printer;
use crate::clients::aws::call::{Call, failed};
use crate::provision::aws::connect::connector::Connector;
use crate::provision::engine::session::{Purpose, Stack};

/// What to do with the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    Pause,
    Resume,
    Restart,
}

/// Begins it and waits until it is done. Returns what was done, for people.
///
/// # Errors
/// There is no connector; it is in no state for it.
pub async fn steer_connector(
    config: &Config,
    steer: Steer,
    printer: &Printer,
) -> Result<&'static str> {
    let progress = printer.activity("connector");
    let stack = Stack::open(config, Purpose::Change, progress.clone()).await?;
    let outcome = stack.carry(on_stack(&stack, steer)).await;
    progress.finish();
    stack.close().await;
    outcome
}

async fn on_stack(stack: &Stack, steer: Steer) -> Result<&'static str> {
    let Some(account) = &stack.account else {
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
    let (done, operation) = match steer {
        Steer::Pause => {
            let begun = client.pause_connector().connector_arn(arn).send().await;
            let begun = begun
                .map_err(|error| failed(Call("kafkaconnect:PauseConnector", &what), &error))?;
            ("paused", begun.connector_operation_arn)
        }
        Steer::Resume => {
            let begun = client.resume_connector().connector_arn(arn).send().await;
            let begun = begun
                .map_err(|error| failed(Call("kafkaconnect:ResumeConnector", &what), &error))?;
            ("resumed", begun.connector_operation_arn)
        }
        Steer::Restart => {
            let begun = client.restart_connector().connector_arn(arn).send().await;
            let begun = begun
                .map_err(|error| failed(Call("kafkaconnect:RestartConnector", &what), &error))?;
            ("restarted", begun.connector_operation_arn)
        }
    };
    connector.follow(&operation.unwrap_or_default()).await?;
    Ok(done)
}

//! Commands on the client machine, through SSM Run Command.

use std::cell::RefCell;

use aws_sdk_ssm::types::CommandInvocationStatus;

use crate::base::error::Result;
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::context::Account;

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandOutcome {
    /// It ended with 0 and said this.
    Done(String),
    /// It ended otherwise; the last line it said.
    Failed(String),
    /// The machine has not registered with Systems Manager.
    NotThere,
}

/// Longest time a command may take, in seconds.
const TIMEOUT_SECONDS: &str = "120";

/// Runs a script on a machine and waits for its end.
///
/// # Errors
/// It cannot be sent or asked for; Ctrl-C.
pub async fn run_command(
    account: &Account,
    instance: &str,
    script: &str,
) -> Result<CommandOutcome> {
    let what = format!("the machine `{instance}`");
    let lines: Vec<String> = script.lines().map(String::from).collect();
    let request = account
        .ssm
        .send_command()
        .document_name("AWS-RunShellScript")
        .instance_ids(instance);
    let request = request
        .parameters("commands", lines)
        .parameters("executionTimeout", vec![TIMEOUT_SECONDS.into()])
        .comment("pinpipe");
    let sent = match request.send().await {
        Ok(sent) => sent,
        Err(error) if code(&error) == "InvalidInstanceId" => return Ok(CommandOutcome::NotThere),
        Err(error) => return Err(failed(Call("ssm:SendCommand", &what), &error)),
    };
    let command = sent
        .command()
        .and_then(|command| command.command_id())
        .unwrap_or_default()
        .to_string();
    let outcome = RefCell::new(CommandOutcome::NotThere);
    let check = || async {
        let found = account
            .ssm
            .get_command_invocation()
            .command_id(&command)
            .instance_id(instance)
            .send()
            .await;
        let found = match found {
            Ok(found) => found,
            // Asked for before it was delivered.
            Err(error) if code(&error) == "InvocationDoesNotExist" => {
                return Ok(Some("being sent".to_string()));
            }
            Err(error) => return Err(failed(Call("ssm:GetCommandInvocation", &what), &error)),
        };
        let text = found
            .standard_output_content()
            .unwrap_or_default()
            .trim()
            .to_string();
        match found.status() {
            Some(CommandInvocationStatus::Success) => {
                *outcome.borrow_mut() = CommandOutcome::Done(text)
            }
            Some(
                CommandInvocationStatus::Pending
                | CommandInvocationStatus::InProgress
                | CommandInvocationStatus::Delayed
                | CommandInvocationStatus::Cancelling,
            ) => return Ok(Some("running".to_string())),
            status => {
                let error = found
                    .standard_error_content()
                    .unwrap_or_default()
                    .trim()
                    .to_string();
                let said = [text, error].join("\n");
                let last = said.lines().rev().find(|line| {
                    !line.trim().is_empty() && !line.contains("failed to run commands")
                });
                let status = status.map_or("unknown", CommandInvocationStatus::as_str);
                *outcome.borrow_mut() = CommandOutcome::Failed(last.unwrap_or(status).to_string());
            }
        }
        Ok(None)
    };
    account
        .wait_until(&format!("a command on {what}"), check)
        .await?;
    Ok(outcome.into_inner())
}

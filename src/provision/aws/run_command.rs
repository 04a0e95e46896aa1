//! Commands on the client machine, run through SSM Run Command.

use std::cell::RefCell;

use aws_sdk_ssm::types::CommandInvocationStatus;

use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;

/// Result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandOutcome {
    /// Standard output of a command that exited with 0.
    Done(String),
    /// Last line of output of a command that failed.
    Failed(String),
    /// The machine is not registered with Systems Manager.
    Unregistered,
}

/// Maximum run time of a command, in seconds.
const TIMEOUT_SECONDS: &str = "120";

/// Runs a shell script on a machine and waits until it exits.
///
/// # Errors
/// The command cannot be sent or its status cannot be read; Ctrl-C.
pub async fn run_command(
    account: &Account,
    instance: &str,
    script: &str,
) -> Result<CommandOutcome> {
    let machine = format!("the machine `{instance}`");
    let lines: Vec<String> = script.lines().map(String::from).collect();
    let request =
        account.ssm.send_command().document_name("AWS-RunShellScript").instance_ids(instance);
    let request = request
        .parameters("commands", lines)
        .parameters("executionTimeout", vec![TIMEOUT_SECONDS.into()])
        .comment("pinpipe");
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if code(&error) == "InvalidInstanceId" => {
            return Ok(CommandOutcome::Unregistered);
        }
        Err(error) => return Err(error.call_context("ssm:SendCommand", &machine)),
    };
    let command_id =
        response.command().and_then(|command| command.command_id()).unwrap_or_default().to_string();
    let outcome = RefCell::new(CommandOutcome::Unregistered);
    let check = || async {
        let response = account
            .ssm
            .get_command_invocation()
            .command_id(&command_id)
            .instance_id(instance)
            .send()
            .await;
        let invocation = match response {
            Ok(invocation) => invocation,
            // The command has not reached the machine yet.
            Err(error) if code(&error) == "InvocationDoesNotExist" => {
                return Ok(Some("being sent".to_string()));
            }
            Err(error) => {
                return Err(error.call_context("ssm:GetCommandInvocation", &machine));
            }
        };
        let stdout = invocation.standard_output_content().unwrap_or_default().trim().to_string();
        match invocation.status() {
            Some(CommandInvocationStatus::Success) => {
                *outcome.borrow_mut() = CommandOutcome::Done(stdout)
            }
            Some(
                CommandInvocationStatus::Pending
                | CommandInvocationStatus::InProgress
                | CommandInvocationStatus::Delayed
                | CommandInvocationStatus::Cancelling,
            ) => return Ok(Some("running".to_string())),
            status => {
                let stderr =
                    invocation.standard_error_content().unwrap_or_default().trim().to_string();
                let output = [stdout, stderr].join("\n");
                let last_line = output.lines().rev().find(|line| {
                    !line.trim().is_empty() && !line.contains("failed to run commands")
                });
                let status = status.map_or("unknown", CommandInvocationStatus::as_str);
                *outcome.borrow_mut() =
                    CommandOutcome::Failed(last_line.unwrap_or(status).to_string());
            }
        }
        Ok(None)
    };
    account.wait_until(&format!("a command on {machine}"), check).await?;
    Ok(outcome.into_inner())
}

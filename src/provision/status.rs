//! `pinpipe status`: what is there.

use serde::Serialize;

use super::resource::{Clients, Resource};
use crate::config::{Addresses, Config, Runtime, Target};
use crate::error::Result;
use crate::output::{Report, Table};

#[derive(Debug, Serialize)]
struct ResourceStatus {
    #[serde(rename = "type")]
    type_name: &'static str,
    name: String,
    exists: bool,
    detail: String,
}

/// The report of `status`.
#[derive(Debug, Serialize)]
pub struct StatusReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Addresses>,
    resources: Vec<ResourceStatus>,
}

impl Report for StatusReport {
    fn text(&self) -> String {
        let mut table = Table::new(["type", "name", "there", "detail"]);
        for resource in &self.resources {
            table.row([resource.type_name, &resource.name, if resource.exists { "yes" } else { "no" }, &resource.detail]);
        }
        match &self.addresses {
            Some(addresses) => format!(
                "{}\nkafka {}, gateway http://{}, kinesis http://{}, control http://{}",
                table.render(),
                addresses.kafka,
                addresses.gateway,
                addresses.kinesis,
                addresses.control
            ),
            None => table.render(),
        }
    }
}

/// Reads every resource.
///
/// # Errors
/// The local stack is not running or cannot be asked.
pub async fn status(config: &Config) -> Result<StatusReport> {
    let clients = Clients::new(config).await?;
    let mut resources = Vec::new();
    for resource in Resource::all() {
        let state = resource.read(&clients).await?;
        resources.push(ResourceStatus {
            type_name: resource.type_name(),
            name: resource.name(config),
            exists: state.exists,
            detail: state.reason,
        });
    }
    let addresses =
        if config.target == Target::Local { Runtime::read(&config.data_dir).ok().map(|runtime| runtime.addresses) } else { None };
    Ok(StatusReport { addresses, resources })
}

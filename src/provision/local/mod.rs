//! Resources of the local stack.

pub mod connector;
pub mod routes;
pub mod stream;
pub mod topic;

use std::rc::Rc;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::model::Kind;
use crate::clients::control::ControlClient;
use crate::clients::kafka::admin::Admin;
use crate::provision::resource::Resource;

/// Clients of the local stack, which all resources share.
pub struct Clients {
    pub config: Config,
    pub kafka: Admin,
    pub kinesis: aws_sdk_kinesis::Client,
    pub control: ControlClient,
}

/// Returns all resources of a local pipeline.
///
/// # Errors
/// The local stack is not running.
pub async fn resources(config: &Config) -> Result<Vec<Box<dyn Resource>>> {
    let control = ControlClient::new(config)?;
    let clients = Rc::new(Clients {
        config: config.clone(),
        kafka: Admin::new(config)?,
        kinesis: crate::clients::aws::kinesis(config).await?,
        control,
    });
    let mut resources: Vec<Box<dyn Resource>> = Vec::new();
    for kind in Kind::ALL {
        resources.push(Box::new(topic::Topic { kind, clients: clients.clone() }));
    }
    for kind in Kind::ALL {
        resources.push(Box::new(stream::Stream { kind, clients: clients.clone() }));
    }
    resources.push(Box::new(connector::Connector { clients: clients.clone() }));
    resources.push(Box::new(routes::Routes { clients }));
    Ok(resources)
}

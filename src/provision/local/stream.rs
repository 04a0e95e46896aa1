//! A stream of the local Kinesis endpoint.

use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::types::StreamStatus;
use backon::{ConstantBuilder, Retryable};

use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::clients::aws::call::failure;
use crate::provision::local::Clients;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

/// Maximum number of checks, one per second, until a new stream is active.
const CREATE_CHECKS: usize = 120;

pub struct Stream {
    pub kind: Kind,
    pub clients: Rc<Clients>,
}

#[async_trait(?Send)]
impl Resource for Stream {
    fn key(&self) -> String {
        format!("stream-{}", self.kind.name())
    }

    fn kind(&self) -> &'static str {
        "stream"
    }

    fn name(&self) -> String {
        self.clients.config.stream_name(self.kind)
    }

    fn holds_data(&self) -> bool {
        true
    }

    async fn observe(&self, _observed: &mut ObservedOutputs) -> Result<Observation> {
        let (name, clients) = (self.name(), &self.clients);
        match clients.kinesis.describe_stream_summary().stream_name(&name).send().await {
            Ok(output) => {
                let shards = output
                    .stream_description_summary
                    .as_ref()
                    .map_or(0, |summary| summary.open_shard_count);
                let desired = clients.config.kinesis.shards;
                let note = if shards == desired {
                    String::new()
                } else {
                    format!(" ({desired} in the configuration)")
                };
                Ok(Observation::in_sync(format!("{shards} shards{note}")))
            }
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|service| service.is_resource_not_found_exception()) =>
            {
                Ok(Observation::missing())
            }
            Err(error) => Err(failure(&format!("cannot read stream `{name}`"), &error)),
        }
    }

    async fn create(&self) -> Result<()> {
        let (name, clients) = (self.name(), &self.clients);
        let created = clients
            .kinesis
            .create_stream()
            .stream_name(&name)
            .shard_count(clients.config.kinesis.shards)
            .send()
            .await;
        if let Err(error) = created {
            let exists = error
                .as_service_error()
                .is_some_and(|service| service.is_resource_in_use_exception());
            if !exists {
                return Err(failure(&format!("cannot create stream `{name}`"), &error));
            }
        }
        let check = || async {
            let output = clients
                .kinesis
                .describe_stream_summary()
                .stream_name(&name)
                .send()
                .await
                .map_err(|error| failure(&format!("cannot read stream `{name}`"), &error))?;
            let status = output.stream_description_summary.map(|summary| summary.stream_status);
            if status == Some(StreamStatus::Active) {
                Ok(())
            } else {
                Err(Error::failed(format!("stream `{name}` is not active yet")))
            }
        };
        check
            .retry(
                ConstantBuilder::default()
                    .with_delay(Duration::from_secs(1))
                    .with_max_times(CREATE_CHECKS),
            )
            .await
    }

    /// Does nothing, because no difference of a local stream is repaired.
    async fn update(&self) -> Result<()> {
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let (name, clients) = (self.name(), &self.clients);
        match clients.kinesis.delete_stream().stream_name(&name).send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|service| service.is_resource_not_found_exception()) =>
            {
                Ok(false)
            }
            Err(error) => Err(failure(&format!("cannot delete stream `{name}`"), &error)),
        }
    }
}

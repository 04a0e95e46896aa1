//! The local sink connector, which writes topics to the lake.

use std::rc::Rc;

use async_trait::async_trait;

use crate::base::error::Result;
use crate::provision::local::Clients;
use crate::provision::resource::{Observation, Resource, changed_keys};
use crate::provision::state::output::ObservedOutputs;
use crate::stages::sink::properties::SinkProperties;

pub struct Connector {
    pub clients: Rc<Clients>,
}

#[async_trait(?Send)]
impl Resource for Connector {
    fn key(&self) -> String {
        "connector".into()
    }

    fn kind(&self) -> &'static str {
        "connector"
    }

    fn name(&self) -> String {
        self.clients.config.connector_name()
    }

    async fn observe(&self, _observed: &mut ObservedOutputs) -> Result<Observation> {
        let desired = self.clients.config.connector_properties();
        // Unsupported properties are reported before any change.
        SinkProperties::parse(&desired)?;
        let Some(existing) = self.clients.control.connector_config(&self.name()).await? else {
            return Ok(Observation::missing());
        };
        let changed = changed_keys(&existing, &desired);
        if !changed.is_empty() {
            return Ok(Observation::compared(
                vec![format!("properties differ: {}", changed.join(", "))],
                "",
            ));
        }
        let status = self.clients.control.connector_status(&self.name()).await?;
        Ok(Observation::in_sync(status.map(|status| status.state).unwrap_or_default()))
    }

    async fn create(&self) -> Result<()> {
        self.clients
            .control
            .put_connector(&self.name(), &self.clients.config.connector_properties())
            .await
    }

    async fn update(&self) -> Result<()> {
        self.create().await
    }

    async fn delete(&self) -> Result<bool> {
        self.clients.control.delete_connector(&self.name()).await
    }
}

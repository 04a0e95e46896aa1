//! The routes of the local gateway.

use std::rc::Rc;

use async_trait::async_trait;

use crate::base::error::Result;
use crate::provision::local::Clients;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

pub struct Routes {
    pub clients: Rc<Clients>,
}

#[async_trait(?Send)]
impl Resource for Routes {
    fn key(&self) -> String {
        "routes".into()
    }

    fn kind(&self) -> &'static str {
        "routes"
    }

    fn name(&self) -> String {
        "gateway".into()
    }

    async fn observe(&self, _observed: &mut ObservedOutputs) -> Result<Observation> {
        Ok(match self.clients.control.routes().await? {
            Some(deployment) => Observation::in_sync(format!("{} routes", deployment.routes.len())),
            None => Observation::missing(),
        })
    }

    async fn create(&self) -> Result<()> {
        self.clients.control.deploy_routes().await.map(|_| ())
    }

    /// Does nothing, because routes have no settings.
    async fn update(&self) -> Result<()> {
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        self.clients.control.delete_routes().await
    }
}

//! The gateway's routes.

use super::{Clients, State};
use crate::error::Result;

pub async fn read(clients: &Clients) -> Result<State> {
    Ok(match clients.control.routes().await? {
        Some(deployment) => State::good(format!("{} routes", deployment.routes.len())),
        None => State::missing(),
    })
}

pub async fn create(clients: &Clients) -> Result<()> {
    clients.control.deploy_routes().await.map(|_| ())
}

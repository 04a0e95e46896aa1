//! The connector from topics to the lake.

use super::{Clients, State};
use crate::error::Result;
use crate::sink::SinkProperties;

pub async fn read(clients: &Clients) -> Result<State> {
    let name = clients.config.connector_name();
    let wanted = clients.config.connector_properties();
    // Properties that are not honoured are found before anything is made.
    SinkProperties::parse(&wanted)?;
    let Some(existing) = clients.control.connector_config(&name).await? else { return Ok(State::missing()) };
    if existing != wanted {
        let changed: Vec<&str> =
            wanted.keys().chain(existing.keys()).filter(|key| wanted.get(*key) != existing.get(*key)).map(String::as_str).collect();
        let mut changed: Vec<&str> = changed;
        changed.sort_unstable();
        changed.dedup();
        return Ok(State::differs(format!("other properties: {}", changed.join(", "))));
    }
    let status = clients.control.connector_status(&name).await?;
    Ok(State::good(status.map(|status| status.state).unwrap_or_default()))
}

/// Makes it or changes its properties.
pub async fn put(clients: &Clients) -> Result<()> {
    clients.control.put_connector(&clients.config.connector_name(), &clients.config.connector_properties()).await
}

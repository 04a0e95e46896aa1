//! `pinpipe status`: every resource, whether it exists and matches the configuration, its age and
//! its cost.

use chrono::Utc;
use serde::Serialize;

use crate::base::config::runtime::{Addresses, Runtime};
use crate::base::config::schema::{Config, Target};
use crate::base::error::Result;
use crate::base::output::table::Table;
use crate::base::output::{Printer, Report};
use crate::provision::cost::{Cost, Prices};
use crate::provision::engine::change::Change;
use crate::provision::engine::selection::Selection;
use crate::provision::engine::session::{Purpose, Session};
use crate::provision::resource::Action;

#[derive(Debug, Serialize)]
struct ResourceStatus {
    key: String,
    #[serde(rename = "type")]
    type_name: &'static str,
    name: String,
    exists: bool,
    /// Action of a plan that is created now; `no-op` if the resource matches the configuration.
    action: Action,
    detail: String,
    /// Hours since its entry in the state was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_hours: Option<f64>,
    #[serde(flatten)]
    cost: Cost,
}

/// The report of `status`.
#[derive(Debug, Serialize)]
pub struct StatusReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Addresses>,
    resources: Vec<ResourceStatus>,
    /// Cost of all resources since they were created.
    #[serde(skip_serializing_if = "Option::is_none")]
    dollars_so_far: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prices: Option<String>,
}

impl Report for StatusReport {
    fn text(&self) -> String {
        let is_priced = self.prices.is_some();
        let mut headers = vec!["type", "name", "exists", "detail"];
        if is_priced {
            headers.extend(["age", "cost to date"]);
        }
        let mut table = Table::new(headers);
        for resource in &self.resources {
            let exists = match (resource.exists, resource.action) {
                (_, Action::Unmanaged) => "unmanaged",
                (true, Action::Update | Action::Replace) => "differs",
                (true, _) => "yes",
                (false, _) => "no",
            };
            let mut row = vec![
                resource.type_name.to_string(),
                resource.name.clone(),
                exists.into(),
                resource.detail.clone(),
            ];
            if is_priced {
                let age = resource.age_hours.unwrap_or(0.0);
                row.push(resource.age_hours.map(age_text).unwrap_or_default());
                row.push(resource.cost.text(age));
            }
            table.row(row);
        }
        let mut text = table.render();
        if let Some(addresses) = &self.addresses {
            text.push_str(&format!(
                "\nkafka {}, gateway http://{}, kinesis http://{}, control http://{}",
                addresses.kafka, addresses.gateway, addresses.kinesis, addresses.control
            ));
        }
        if let (Some(dollars), Some(prices)) = (self.dollars_so_far, &self.prices) {
            text.push_str(&format!("\nabout ${dollars:.2} to date ({prices})"));
        }
        text
    }
}

fn age_text(hours: f64) -> String {
    match hours {
        hours if hours < 1.0 => format!("{:.0} min", hours * 60.0),
        hours if hours < 48.0 => format!("{hours:.1} h"),
        hours => format!("{:.1} days", hours / 24.0),
    }
}

/// Observes the selected resources.
///
/// # Errors
/// The local stack is not running; no AWS credentials; a resource cannot be read.
pub async fn status(
    config: &Config,
    selection: &Selection,
    printer: &Printer,
) -> Result<StatusReport> {
    let progress = printer.activity("reading");
    let session = Session::open(config, Purpose::Read, progress.clone()).await?;
    let report = session.run_until_cancelled(read(config, selection, &session)).await;
    progress.finish();
    session.close().await;
    report
}

async fn read(config: &Config, selection: &Selection, session: &Session) -> Result<StatusReport> {
    let prices = Prices::built_in();
    let selected = selection.keys(&session.graph)?;
    let changes = session.observe(&selected).await?;
    let mut resources = Vec::new();
    for resource in session.graph.resources() {
        let key = resource.key();
        // A disabled resource is shown if it exists.
        let is_shown = |change: &&Change| change.exists || resource.is_enabled();
        let change = changes.get(&key).filter(|_| selected.contains(&key));
        let Some(change) = change.filter(is_shown) else {
            continue;
        };
        let entry = match &session.account {
            Some(account) if change.exists && change.is_managed() => {
                account.state.entry(&key).await
            }
            _ => None,
        };
        let age_hours =
            entry.map(|entry| (Utc::now() - entry.begun_at).num_seconds() as f64 / 3600.0);
        resources.push(ResourceStatus {
            key,
            type_name: resource.kind(),
            name: resource.name(),
            exists: change.exists,
            action: change.action,
            detail: change.reason(),
            age_hours,
            cost: prices.cost(&resource.cost_items()),
        });
    }
    let addresses = if config.target == Target::Local {
        Runtime::read(&config.data_dir).ok().map(|runtime| runtime.addresses)
    } else {
        None
    };
    let is_priced = session.account.is_some();
    // `fold` starts at 0.0, because the sum of no items would be -0.
    let so_far = resources
        .iter()
        .filter_map(|resource| Some(resource.age_hours? * resource.cost.dollars_per_hour))
        .fold(0.0, |sum, each| sum + each);
    Ok(StatusReport {
        addresses,
        resources,
        dollars_so_far: is_priced.then_some(so_far),
        prices: is_priced.then(|| prices.note()),
    })
}

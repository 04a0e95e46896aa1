//! The backends for a cluster's topics: the topic operations of MSK, the Kafka protocol from this
//! machine, and `kafka-topics.sh` on the client machine.

pub mod backend;
mod brokers;
mod client_machine;
mod msk;

use std::rc::Rc;

use crate::base::config::check::has_topic_operations;
use crate::base::config::schema::TopicsVia;
use crate::base::error::Result;
use crate::provision::aws::context::Account;
use crate::provision::aws::msk::topic_backend::backend::TopicBackend;
use crate::provision::aws::msk::topic_backend::brokers::Brokers;
use crate::provision::aws::msk::topic_backend::client_machine::ClientMachine;
use crate::provision::aws::msk::topic_backend::msk::Msk;
use crate::provision::aws::outputs;

/// Chooses the backend by `topics.via`, the Kafka version and the reachability of the brokers.
/// Returns `None` if the backend needs the client machine and it is not ready.
pub async fn choose(account: &Rc<Account>) -> Result<Option<Box<dyn TopicBackend>>> {
    let via = match account.config.topics.via {
        TopicsVia::Auto => choose_automatically(account).await,
        via => via,
    };
    let account = account.clone();
    Ok(match via {
        TopicsVia::Ssm if !client_machine::is_ready(&account).await => None,
        TopicsVia::Ssm => Some(Box::new(ClientMachine { account })),
        TopicsVia::Direct => Some(Box::new(Brokers { account })),
        TopicsVia::Msk | TopicsVia::Auto => Some(Box::new(Msk { account })),
    })
}

async fn choose_automatically(account: &Account) -> TopicsVia {
    let version = account.state.output(&outputs::KAFKA_VERSION).await.unwrap_or_default();
    if has_topic_operations(&version) {
        return TopicsVia::Msk;
    }
    let servers = account.state.output(&outputs::BOOTSTRAP_SERVERS).await.unwrap_or_default();
    let is_reachable =
        account.brokers_reached.get_or_init(|| brokers::is_reachable(&servers)).await;
    if *is_reachable { TopicsVia::Direct } else { TopicsVia::Ssm }
}

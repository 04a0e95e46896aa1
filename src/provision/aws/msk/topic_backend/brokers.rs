//! Topics over the Kafka protocol, from this machine.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::config::schema::{Config, KafkaAuth};
use crate::base::error::Result;
use crate::clients::kafka::admin::{Admin, TopicDescription};
use crate::provision::aws::context::Account;
use crate::provision::aws::msk::topic_backend::backend::{TopicBackend, TopicState};
use crate::provision::aws::outputs;

/// Timeout of the connection attempt to a broker.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

pub struct Brokers {
    pub account: Rc<Account>,
}

/// Whether the first broker accepts a connection from this machine.
pub async fn is_reachable(bootstrap_servers: &str) -> bool {
    let first = bootstrap_servers.split(',').next().unwrap_or_default().to_string();
    matches!(
        tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(first)).await,
        Ok(Ok(_))
    )
}

impl Brokers {
    /// Admin client of the provisioned cluster, with IAM authentication.
    async fn admin_client(&self) -> Result<Admin> {
        let mut config: Config = self.account.config.clone();
        config.kafka.bootstrap_servers =
            self.account.state.require_output(&outputs::BOOTSTRAP_SERVERS).await?;
        config.kafka.auth = KafkaAuth::Iam;
        Admin::new(&config)
    }
}

fn partition_count(topic: TopicDescription) -> i32 {
    topic.partitions.len() as i32
}

#[async_trait(?Send)]
impl TopicBackend for Brokers {
    fn name(&self) -> &'static str {
        "the brokers"
    }

    async fn list(&self) -> Result<BTreeMap<String, i32>> {
        let (admin, mut topics) = (self.admin_client().await?, BTreeMap::new());
        for topic in admin.list().await? {
            let partitions = admin.describe(&topic).await?.map_or(0, partition_count);
            topics.insert(topic, partitions);
        }
        Ok(topics)
    }

    async fn describe(&self, topic: &str) -> Result<TopicState> {
        let description = self.admin_client().await?.describe(topic).await?;
        Ok(TopicState::from_partitions(description.map(partition_count)))
    }

    async fn create(&self, topic: &str, partitions: i32, replicas: i32) -> Result<()> {
        self.admin_client().await?.create(topic, partitions, replicas).await.map(|_| ())
    }

    async fn delete(&self, topic: &str) -> Result<bool> {
        self.admin_client().await?.delete(topic).await
    }
}

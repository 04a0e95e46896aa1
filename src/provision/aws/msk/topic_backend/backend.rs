//! The interface of the backends for topics.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::base::error::Result;

/// Whether a topic exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicState {
    /// The topic exists and has this number of partitions.
    Exists(i32),
    Missing,
    /// The client machine does not accept commands at the moment.
    Unknown,
}

impl TopicState {
    pub fn from_partitions(partitions: Option<i32>) -> Self {
        partitions.map_or(Self::Missing, Self::Exists)
    }
}

/// Reads and changes the topics of the provisioned cluster.
#[async_trait(?Send)]
pub trait TopicBackend {
    /// Name of the backend in messages, such as `the brokers`.
    fn name(&self) -> &'static str;

    /// Lists the topics with their number of partitions.
    ///
    /// # Errors
    /// The backend cannot be reached.
    async fn list(&self) -> Result<BTreeMap<String, i32>>;

    /// Returns whether a topic exists, with its number of partitions.
    ///
    /// # Errors
    /// The backend cannot be reached.
    async fn describe(&self, topic: &str) -> Result<TopicState>;

    /// Creates a topic. An existing topic is kept unchanged.
    ///
    /// # Errors
    /// The backend cannot be reached or rejects the topic.
    async fn create(&self, topic: &str, partitions: i32, replicas: i32) -> Result<()>;

    /// Deletes a topic. Returns `false` if it does not exist.
    ///
    /// # Errors
    /// The backend cannot be reached or refuses the deletion.
    async fn delete(&self, topic: &str) -> Result<bool>;
}

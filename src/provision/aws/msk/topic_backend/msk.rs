//! Topics through the topic operations of MSK.

use std::collections::BTreeMap;
use std::rc::Rc;

use async_trait::async_trait;

use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::msk::topic_backend::backend::{TopicBackend, TopicState};
use crate::provision::aws::outputs;

/// Error codes of a topic that does not exist.
const MISSING_CODES: [&str; 2] = ["NotFoundException", "UnknownTopicOrPartitionException"];
/// Error codes of a topic that already exists.
const EXISTING_CODES: [&str; 2] = ["TopicExistsException", "ConflictException"];

pub struct Msk {
    pub account: Rc<Account>,
}

impl Msk {
    async fn cluster_arn(&self) -> Result<String> {
        self.account.state.require_output(&outputs::CLUSTER_ARN).await
    }
}

fn display_name(topic: &str) -> String {
    format!("topic `{topic}`")
}

#[async_trait(?Send)]
impl TopicBackend for Msk {
    fn name(&self) -> &'static str {
        "MSK"
    }

    async fn list(&self) -> Result<BTreeMap<String, i32>> {
        let request = self.account.msk.list_topics().cluster_arn(self.cluster_arn().await?);
        let mut topics = BTreeMap::new();
        let mut pages = request.into_paginator().items().send();
        while let Some(item) = pages.next().await {
            let topic = item.call_context("kafka:ListTopics", "the topics")?;
            topics.insert(
                topic.topic_name().unwrap_or_default().to_string(),
                topic.partition_count().unwrap_or_default(),
            );
        }
        Ok(topics)
    }

    async fn describe(&self, topic: &str) -> Result<TopicState> {
        let request = self.account.msk.describe_topic().cluster_arn(self.cluster_arn().await?);
        match request.topic_name(topic).send().await {
            Ok(response) => Ok(TopicState::from_partitions(response.partition_count())),
            Err(error) if MISSING_CODES.contains(&code(&error)) => Ok(TopicState::Missing),
            Err(error) => Err(error.call_context("kafka:DescribeTopic", &display_name(topic))),
        }
    }

    async fn create(&self, topic: &str, partitions: i32, replicas: i32) -> Result<()> {
        let request = self.account.msk.create_topic().cluster_arn(self.cluster_arn().await?);
        let request = request.topic_name(topic).partition_count(partitions);
        match request.replication_factor(replicas).send().await {
            Ok(_) => Ok(()),
            Err(error) if EXISTING_CODES.contains(&code(&error)) => Ok(()),
            Err(error) => Err(error.call_context("kafka:CreateTopic", &display_name(topic))),
        }
    }

    async fn delete(&self, topic: &str) -> Result<bool> {
        let request = self.account.msk.delete_topic().cluster_arn(self.cluster_arn().await?);
        match request.topic_name(topic).send().await {
            Ok(_) => Ok(true),
            Err(error) if MISSING_CODES.contains(&code(&error)) => Ok(false),
            Err(error) => Err(error.call_context("kafka:DeleteTopic", &display_name(topic))),
        }
    }
}

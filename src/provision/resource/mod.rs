//! What is provisioned: one file for each kind of resource, all with the same verbs.

mod connector;
mod routes;
mod stream;
mod topic;

use serde::Serialize;

use crate::config::{Config, Target};
use crate::control::ControlClient;
use crate::error::{Error, Result};
use crate::kafka::Admin;
use crate::record::Kind;

/// What has to be done about a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Create,
    Update,
    Keep,
}

/// How a resource stands: what has to be done about it, and why.
#[derive(Debug, Clone, Serialize)]
pub struct State {
    pub exists: bool,
    pub action: Action,
    pub reason: String,
}

impl State {
    fn missing() -> Self {
        Self { exists: false, action: Action::Create, reason: "it is not there".into() }
    }

    fn good(reason: impl Into<String>) -> Self {
        Self { exists: true, action: Action::Keep, reason: reason.into() }
    }

    fn differs(reason: impl Into<String>) -> Self {
        Self { exists: true, action: Action::Update, reason: reason.into() }
    }
}

/// The clients that resources are read and changed with.
pub struct Clients {
    pub config: Config,
    pub kafka: Admin,
    pub kinesis: aws_sdk_kinesis::Client,
    pub control: ControlClient,
}

impl Clients {
    /// # Errors
    /// No local stack is running; the target is aws.
    pub async fn new(config: &Config) -> Result<Self> {
        if config.target == Target::Aws {
            return Err(Error::failed("provisioning an AWS account is not part of this version")
                .hint("on target aws the other commands work against what is there already: name its endpoints in the configuration, then `pinpipe doctor`"));
        }
        let control = ControlClient::new(config)?;
        Ok(Self { config: config.clone(), kafka: Admin::new(config)?, kinesis: crate::aws::kinesis(config).await?, control })
    }
}

/// A resource of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Topic(Kind),
    Stream(Kind),
    Connector,
    Routes,
}

impl Resource {
    /// All of them, each after what it needs.
    pub fn all() -> Vec<Resource> {
        let topics = Kind::ALL.map(Resource::Topic);
        let streams = Kind::ALL.map(Resource::Stream);
        topics.into_iter().chain(streams).chain([Resource::Connector, Resource::Routes]).collect()
    }

    /// Its kind, for people.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Topic(_) => "topic",
            Self::Stream(_) => "stream",
            Self::Connector => "connector",
            Self::Routes => "routes",
        }
    }

    /// Its name.
    pub fn name(self, config: &Config) -> String {
        match self {
            Self::Topic(kind) => config.topic(kind),
            Self::Stream(kind) => config.stream_name(kind),
            Self::Connector => config.connector_name(),
            Self::Routes => "gateway".into(),
        }
    }

    /// Compares what is there with what is wanted.
    pub async fn read(self, clients: &Clients) -> Result<State> {
        match self {
            Self::Topic(kind) => topic::read(clients, kind).await,
            Self::Stream(kind) => stream::read(clients, kind).await,
            Self::Connector => connector::read(clients).await,
            Self::Routes => routes::read(clients).await,
        }
    }

    /// Makes it.
    pub async fn create(self, clients: &Clients) -> Result<()> {
        match self {
            Self::Topic(kind) => topic::create(clients, kind).await,
            Self::Stream(kind) => stream::create(clients, kind).await,
            Self::Connector => connector::put(clients).await,
            Self::Routes => routes::create(clients).await,
        }
    }

    /// Changes it into what is wanted.
    pub async fn update(self, clients: &Clients) -> Result<()> {
        match self {
            Self::Connector => connector::put(clients).await,
            // Nothing of these can differ and be changed: `read` never asks for it.
            Self::Topic(_) | Self::Stream(_) | Self::Routes => Ok(()),
        }
    }

    /// Removes it. `false`: it was not there.
    pub async fn delete(self, clients: &Clients) -> Result<bool> {
        match self {
            Self::Topic(kind) => clients.kafka.delete(&clients.config.topic(kind)).await,
            Self::Stream(kind) => stream::delete(clients, kind).await,
            Self::Connector => clients.control.delete_connector(&clients.config.connector_name()).await,
            Self::Routes => clients.control.delete_routes().await,
        }
    }
}

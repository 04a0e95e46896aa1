//! Topics of the provisioned cluster, for `pinpipe topics`.

use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result};
use crate::base::output::Printer;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::msk::topic_backend;
use crate::provision::aws::msk::topic_backend::backend::{TopicBackend, TopicState};
use crate::provision::aws::outputs;
use crate::provision::engine::selection::Selection;
use crate::provision::engine::session::{LONGER_GRACE, Purpose, Session, run_until_shutdown};

/// Lists, creates and deletes topics through the backend of the cluster.
pub struct TopicService {
    account: Rc<Account>,
    backend: Box<dyn TopicBackend>,
}

impl TopicService {
    /// Opens the provisioned cluster. Returns `None` if `topics` uses the Kafka protocol directly:
    /// on target `local`, or if the configuration names the brokers.
    ///
    /// # Errors
    /// The cluster does not exist; the client machine, if the backend needs it, is not ready.
    pub async fn open(config: &Config, printer: &Printer) -> Result<Option<Self>> {
        if config.target == Target::Local || !config.kafka.bootstrap_servers.is_empty() {
            return Ok(None);
        }
        let progress = printer.activity("topics");
        let session = Session::open(config, Purpose::Read, progress).await?;
        // The observation reads the addresses of both resources, because this machine may have no
        // state.
        let selected = Selection::of([keys::CLUSTER, keys::CLIENT]).keys(&session.graph)?;
        session.run_until_cancelled(session.observe(&selected)).await?;
        let Some(account) = session.account.clone() else {
            return Ok(None);
        };
        session.close().await;
        let missing = || {
            Error::failed("the cluster does not exist")
                .hint("`pinpipe provision` creates the cluster")
        };
        account.state.output(&outputs::BOOTSTRAP_SERVERS).await.ok_or_else(missing)?;
        let backend = topic_backend::choose(&account).await?.ok_or_else(|| {
            Error::failed("the client machine, which reads and changes topics, is not ready")
                .hint("`pinpipe provision` creates or starts it, `pinpipe status` shows its state")
        })?;
        Ok(Some(Self { account, backend }))
    }

    /// Lists the topics with their number of partitions.
    pub async fn list(&self) -> Result<BTreeMap<String, i32>> {
        self.run_until_shutdown(self.backend.list()).await
    }

    /// Creates a topic. Returns `false` if it already exists.
    pub async fn create(&self, topic: &str, partitions: i32) -> Result<bool> {
        let create = async {
            if matches!(self.backend.describe(topic).await?, TopicState::Exists(_)) {
                return Ok(false);
            }
            let replicas = self.account.config.topics.replication_factor;
            self.backend.create(topic, partitions, replicas).await?;
            Ok(true)
        };
        self.run_until_shutdown(create).await
    }

    /// Deletes a topic. Returns `false` if it does not exist.
    pub async fn delete(&self, topic: &str) -> Result<bool> {
        self.run_until_shutdown(self.backend.delete(topic)).await
    }

    async fn run_until_shutdown<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        run_until_shutdown(&self.account.stop, LONGER_GRACE, work).await
    }
}

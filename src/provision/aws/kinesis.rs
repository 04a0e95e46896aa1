//! Kinesis streams, in provisioned or on-demand mode.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_kinesis::types::{
    ScalingType, StreamDescriptionSummary, StreamMode as Mode, StreamModeDetails, StreamStatus,
};

use crate::base::config::schema::StreamMode;
use crate::base::error::{ErrorContext, Result};
use crate::base::model::Kind;
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::cost::CostItem;
use crate::provision::resource::{Difference, Observation, Resource};
use crate::provision::state::output::{ObservedOutputs, Output};

pub struct Stream {
    pub kind: Kind,
    pub account: Rc<Account>,
}

/// Key of a record kind's stream.
pub fn key(kind: Kind) -> String {
    format!("stream-{}", kind.name())
}

/// A repair of one difference between the stream and its configuration, by one API call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Repair {
    Tags(Difference),
    Mode,
    Shards { from: i32 },
    RetentionHours { from: i32 },
}

impl Stream {
    fn display_name(&self) -> String {
        format!("stream `{}`", self.name())
    }

    fn mode(&self) -> Mode {
        match self.account.config.kinesis.mode {
            StreamMode::Provisioned => Mode::Provisioned,
            StreamMode::OnDemand => Mode::OnDemand,
        }
    }

    fn mode_details(&self) -> Result<StreamModeDetails> {
        StreamModeDetails::builder()
            .stream_mode(self.mode())
            .build()
            .context(|| "cannot build the stream mode of the request")
    }

    fn describe(&self, repair: &Repair) -> Difference {
        let desired = &self.account.config.kinesis;
        match repair {
            Repair::Tags(text) => text.clone(),
            Repair::Mode => format!("the stream mode is not {}", self.mode().as_str()).into(),
            Repair::Shards { from } => Difference::field("shards", from, desired.shards),
            Repair::RetentionHours { from } => {
                Difference::field("retention_hours", from, desired.retention_hours)
            }
        }
    }

    async fn find(&self) -> Result<Option<StreamDescriptionSummary>> {
        match self.account.kinesis.describe_stream_summary().stream_name(self.name()).send().await {
            Ok(response) => Ok(response.stream_description_summary),
            Err(error) if code(&error) == "ResourceNotFoundException" => Ok(None),
            Err(error) => {
                Err(error.call_context("kinesis:DescribeStreamSummary", &self.display_name()))
            }
        }
    }

    async fn tags(&self) -> Result<Vec<(String, String)>> {
        let response =
            self.account.kinesis.list_tags_for_stream().stream_name(self.name()).send().await;
        if response.as_ref().is_err_and(|error| code(error) == "ResourceNotFoundException") {
            // The stream was deleted after it was described. The desired tags are returned instead,
            // and the caller's next call reports the deletion.
            return Ok(self.account.tags(&self.key()));
        }
        let listed = response.call_context("kinesis:ListTagsForStream", &self.display_name())?;
        Ok(listed
            .tags()
            .iter()
            .map(|tag| (tag.key().to_string(), tag.value().unwrap_or_default().to_string()))
            .collect())
    }

    fn repairs(&self, found: &StreamDescriptionSummary, tags: &[(String, String)]) -> Vec<Repair> {
        let desired = &self.account.config.kinesis;
        let pairs = tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let mut repairs: Vec<Repair> = self
            .account
            .tag_differences(&self.key(), pairs)
            .into_iter()
            .map(Repair::Tags)
            .collect();
        let mode = found
            .stream_mode_details()
            .map(|details| details.stream_mode().clone())
            .unwrap_or(Mode::Provisioned);
        if mode != self.mode() {
            repairs.push(Repair::Mode);
        } else if mode == Mode::Provisioned && found.open_shard_count() != desired.shards {
            repairs.push(Repair::Shards { from: found.open_shard_count() });
        }
        if found.retention_period_hours() != desired.retention_hours as i32 {
            repairs.push(Repair::RetentionHours { from: found.retention_period_hours() });
        }
        repairs
    }

    async fn apply(&self, repair: &Repair, arn: &str) -> Result<()> {
        let (kinesis, desired, name) =
            (&self.account.kinesis, &self.account.config.kinesis, self.name());
        match repair {
            Repair::Tags(_) => {
                let tags = self.account.tags(&self.key()).into_iter().collect();
                let response = kinesis
                    .add_tags_to_stream()
                    .stream_name(name)
                    .set_tags(Some(tags))
                    .send()
                    .await;
                response.call_context("kinesis:AddTagsToStream", &self.display_name())?;
            }
            Repair::Mode => {
                let response = kinesis
                    .update_stream_mode()
                    .stream_arn(arn)
                    .stream_mode_details(self.mode_details()?)
                    .send()
                    .await;
                response.call_context("kinesis:UpdateStreamMode", &self.display_name())?;
            }
            Repair::Shards { from } => {
                // One call can at most double or halve the number of shards. The next observation
                // finds the remaining difference.
                let step = desired.shards.clamp((from + 1) / 2, from * 2);
                let request = kinesis
                    .update_shard_count()
                    .stream_name(name)
                    .target_shard_count(step)
                    .scaling_type(ScalingType::UniformScaling);
                request
                    .send()
                    .await
                    .call_context("kinesis:UpdateShardCount", &self.display_name())?;
            }
            Repair::RetentionHours { from } if (*from as u32) < desired.retention_hours => {
                let request = kinesis
                    .increase_stream_retention_period()
                    .stream_name(name)
                    .retention_period_hours(desired.retention_hours as i32);
                request
                    .send()
                    .await
                    .call_context("kinesis:IncreaseStreamRetentionPeriod", &self.display_name())?;
            }
            Repair::RetentionHours { .. } => {
                let request = kinesis
                    .decrease_stream_retention_period()
                    .stream_name(name)
                    .retention_period_hours(desired.retention_hours as i32);
                request
                    .send()
                    .await
                    .call_context("kinesis:DecreaseStreamRetentionPeriod", &self.display_name())?;
            }
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Resource for Stream {
    fn key(&self) -> String {
        key(self.kind)
    }

    fn kind(&self) -> &'static str {
        "stream"
    }

    fn name(&self) -> String {
        self.account.config.stream_name(self.kind)
    }

    fn holds_data(&self) -> bool {
        true
    }

    fn cost_items(&self) -> Vec<CostItem> {
        match self.account.config.kinesis.mode {
            StreamMode::Provisioned => {
                vec![CostItem::new("kinesis-shard", self.account.config.kinesis.shards)]
            }
            StreamMode::OnDemand => vec![CostItem::new("kinesis-on-demand-stream", 1)],
        }
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(found) = self.find().await? else {
            return Ok(Observation::missing());
        };
        if *found.stream_status() != StreamStatus::Active {
            return Ok(Observation::pending(found.stream_status().as_str()));
        }
        let tags = self.tags().await?;
        if !self.account.is_managed(tags.iter().map(|(key, value)| (key.as_str(), value.as_str())))
        {
            return Ok(Observation::unmanaged());
        }
        observed
            .found(self.name())
            .set(&Output::<String>::of(self.key(), "arn"), found.stream_arn());
        let repairs = self.repairs(&found, &tags);
        let detail = format!(
            "{} shards, {} hours",
            found.open_shard_count(),
            found.retention_period_hours()
        );
        Ok(Observation::compared(
            repairs.iter().map(|repair| self.describe(repair)).collect(),
            detail,
        ))
    }

    async fn create(&self) -> Result<()> {
        let desired = &self.account.config.kinesis;
        let request = self
            .account
            .kinesis
            .create_stream()
            .stream_name(self.name())
            .stream_mode_details(self.mode_details()?);
        let request = request.set_tags(Some(self.account.tags(&self.key()).into_iter().collect()));
        let request = match desired.mode {
            StreamMode::Provisioned => request.shard_count(desired.shards),
            StreamMode::OnDemand => request,
        };
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "ResourceInUseException" => Ok(()),
            Err(error) => Err(error.call_context("kinesis:CreateStream", &self.display_name())),
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        for repair in self.repairs(&found, &self.tags().await?) {
            let applied = self.apply(&repair, found.stream_arn()).await;
            // A change whose response was lost is in progress. The next observation finds the
            // remaining differences.
            let is_in_progress = applied
                .as_ref()
                .is_err_and(|error| error.has_service_code(&["ResourceInUseException"]));
            if !is_in_progress {
                applied?;
            }
            self.wait().await?;
        }
        Ok(())
    }

    async fn wait(&self) -> Result<()> {
        let check = || async {
            let status = self.find().await?.map(|found| found.stream_status().clone());
            Ok(status
                .filter(|status| *status != StreamStatus::Active)
                .map(|status| status.as_str().to_string()))
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(found) = self.find().await? else {
            return Ok(false);
        };
        if *found.stream_status() != StreamStatus::Deleting {
            let tags = self.tags().await?;
            if !self
                .account
                .is_managed(tags.iter().map(|(key, value)| (key.as_str(), value.as_str())))
            {
                return Ok(false);
            }
            match self
                .account
                .kinesis
                .delete_stream()
                .stream_name(self.name())
                .enforce_consumer_deletion(true)
                .send()
                .await
            {
                Err(error) if code(&error) != "ResourceNotFoundException" => {
                    // An earlier attempt whose response was lost has started the deletion.
                    let status = self.find().await?.map(|found| found.stream_status().clone());
                    if status.is_some_and(|status| status != StreamStatus::Deleting) {
                        return Err(
                            error.call_context("kinesis:DeleteStream", &self.display_name())
                        );
                    }
                }
                _ => {}
            }
        }
        let check = || async {
            Ok(self.find().await?.map(|found| found.stream_status().as_str().to_string()))
        };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}

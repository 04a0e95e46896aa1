//! Kinesis streams, provisioned or on demand.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_kinesis::types::{
    ScalingType, StreamDescriptionSummary, StreamMode as Mode, StreamModeDetails, StreamStatus,
};

use crate::base::config::schema::StreamMode;
use crate::base::error::{OrFail, Result};
use crate::base::model::Kind;
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::context::Account;
use crate::provision::cost::Priced;
use crate::provision::resource::{Reading, Resource};

pub struct Stream {
    pub kind: Kind,
    pub account: Rc<Account>,
}

/// Key of one kind's stream.
pub fn key(kind: Kind) -> String {
    format!("stream-{}", kind.name())
}

/// How the stream should be and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Difference {
    Tags(String),
    Mode,
    Shards { from: i32 },
    RetentionHours { from: i32 },
}

impl Stream {
    fn what(&self) -> String {
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
            .or_fail(|| "a mode is not whole")
    }

    fn describe(&self, difference: &Difference) -> String {
        let wanted = &self.account.config.kinesis;
        match difference {
            Difference::Tags(text) => text.clone(),
            Difference::Mode => format!("it is not {}", self.mode().as_str()),
            Difference::Shards { from } => format!("it has {from} shards, not {}", wanted.shards),
            Difference::RetentionHours { from } => format!(
                "it keeps records for {from} hours, not {}",
                wanted.retention_hours
            ),
        }
    }

    async fn find(&self) -> Result<Option<StreamDescriptionSummary>> {
        match self
            .account
            .kinesis
            .describe_stream_summary()
            .stream_name(self.name())
            .send()
            .await
        {
            Ok(found) => Ok(found.stream_description_summary),
            Err(error) if code(&error) == "ResourceNotFoundException" => Ok(None),
            Err(error) => Err(failed(
                Call("kinesis:DescribeStreamSummary", &self.what()),
                &error,
            )),
        }
    }

    async fn tags(&self) -> Result<Vec<(String, String)>> {
        let found = self
            .account
            .kinesis
            .list_tags_for_stream()
            .stream_name(self.name())
            .send()
            .await;
        if found
            .as_ref()
            .is_err_and(|error| code(error) == "ResourceNotFoundException")
        {
            // It went between being described and being asked: whoever asks sees it go.
            return Ok(self.account.tags(&self.key()));
        }
        let found = found
            .map_err(|error| failed(Call("kinesis:ListTagsForStream", &self.what()), &error))?;
        Ok(found
            .tags()
            .iter()
            .map(|tag| {
                (
                    tag.key().to_string(),
                    tag.value().unwrap_or_default().to_string(),
                )
            })
            .collect())
    }

    fn differences(
        &self,
        found: &StreamDescriptionSummary,
        tags: &[(String, String)],
    ) -> Vec<Difference> {
        let wanted = &self.account.config.kinesis;
        let pairs = tags
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let mut differences: Vec<Difference> = self
            .account
            .tag_differences(&self.key(), pairs)
            .into_iter()
            .map(Difference::Tags)
            .collect();
        let mode = found
            .stream_mode_details()
            .map(|details| details.stream_mode().clone())
            .unwrap_or(Mode::Provisioned);
        if mode != self.mode() {
            differences.push(Difference::Mode);
        } else if mode == Mode::Provisioned && found.open_shard_count() != wanted.shards {
            differences.push(Difference::Shards {
                from: found.open_shard_count(),
            });
        }
        if found.retention_period_hours() != wanted.retention_hours as i32 {
            differences.push(Difference::RetentionHours {
                from: found.retention_period_hours(),
            });
        }
        differences
    }

    async fn mend(&self, difference: &Difference, arn: &str) -> Result<()> {
        let (kinesis, wanted, name) = (
            &self.account.kinesis,
            &self.account.config.kinesis,
            self.name(),
        );
        match difference {
            Difference::Tags(_) => {
                let tags = self.account.tags(&self.key()).into_iter().collect();
                let put = kinesis
                    .add_tags_to_stream()
                    .stream_name(name)
                    .set_tags(Some(tags))
                    .send()
                    .await;
                put.map_err(|error| failed(Call("kinesis:AddTagsToStream", &self.what()), &error))?;
            }
            Difference::Mode => {
                let put = kinesis
                    .update_stream_mode()
                    .stream_arn(arn)
                    .stream_mode_details(self.mode_details()?)
                    .send()
                    .await;
                put.map_err(|error| {
                    failed(Call("kinesis:UpdateStreamMode", &self.what()), &error)
                })?;
            }
            Difference::Shards { from } => {
                // A stream at most doubles or halves in one step; the next reading takes the next.
                let step = wanted.shards.clamp((from + 1) / 2, from * 2);
                let put = kinesis
                    .update_shard_count()
                    .stream_name(name)
                    .target_shard_count(step)
                    .scaling_type(ScalingType::UniformScaling);
                put.send().await.map_err(|error| {
                    failed(Call("kinesis:UpdateShardCount", &self.what()), &error)
                })?;
            }
            Difference::RetentionHours { from } if (*from as u32) < wanted.retention_hours => {
                let put = kinesis
                    .increase_stream_retention_period()
                    .stream_name(name)
                    .retention_period_hours(wanted.retention_hours as i32);
                put.send().await.map_err(|error| {
                    failed(
                        Call("kinesis:IncreaseStreamRetentionPeriod", &self.what()),
                        &error,
                    )
                })?;
            }
            Difference::RetentionHours { .. } => {
                let put = kinesis
                    .decrease_stream_retention_period()
                    .stream_name(name)
                    .retention_period_hours(wanted.retention_hours as i32);
                put.send().await.map_err(|error| {
                    failed(
                        Call("kinesis:DecreaseStreamRetentionPeriod", &self.what()),
                        &error,
                    )
                })?;
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

    fn priced(&self) -> Vec<Priced> {
        match self.account.config.kinesis.mode {
            StreamMode::Provisioned => vec![Priced::new(
                "kinesis-shard",
                self.account.config.kinesis.shards,
            )],
            StreamMode::OnDemand => vec![Priced::new("kinesis-on-demand-stream", 1)],
        }
    }

    async fn read(&self) -> Result<Reading> {
        let Some(found) = self.find().await? else {
            return Ok(Reading::missing());
        };
        if *found.stream_status() != StreamStatus::Active {
            return Ok(Reading::waiting(found.stream_status().as_str()));
        }
        let tags = self.tags().await?;
        if !self.account.is_ours(
            tags.iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        ) {
            return Ok(Reading::foreign());
        }
        self.account
            .state
            .note(&self.key(), &self.name(), &[("arn", found.stream_arn())])
            .await?;
        let differences = self.differences(&found, &tags);
        let detail = format!(
            "{} shards, {} hours",
            found.open_shard_count(),
            found.retention_period_hours()
        );
        Ok(Reading::compared(
            differences
                .iter()
                .map(|difference| self.describe(difference))
                .collect(),
            detail,
        ))
    }

    async fn create(&self) -> Result<()> {
        let wanted = &self.account.config.kinesis;
        let request = self
            .account
            .kinesis
            .create_stream()
            .stream_name(self.name())
            .stream_mode_details(self.mode_details()?);
        let request = request.set_tags(Some(self.account.tags(&self.key()).into_iter().collect()));
        let request = match wanted.mode {
            StreamMode::Provisioned => request.shard_count(wanted.shards),
            StreamMode::OnDemand => request,
        };
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "ResourceInUseException" => Ok(()),
            Err(error) => Err(failed(Call("kinesis:CreateStream", &self.what()), &error)),
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        for difference in self.differences(&found, &self.tags().await?) {
            let mended = self.mend(&difference, found.stream_arn()).await;
            // A change whose answer got lost is under way: what is left is found by the next reading.
            let is_under_way = mended
                .as_ref()
                .is_err_and(|error| error.to_string().contains("ResourceInUseException"));
            if !is_under_way {
                mended?;
            }
            self.wait().await?;
        }
        Ok(())
    }

    async fn wait(&self) -> Result<()> {
        let check = || async {
            let status = self
                .find()
                .await?
                .map(|found| found.stream_status().clone());
            Ok(status
                .filter(|status| *status != StreamStatus::Active)
                .map(|status| status.as_str().to_string()))
        };
        self.account.until_done(&self.what(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(found) = self.find().await? else {
            return Ok(false);
        };
        if *found.stream_status() != StreamStatus::Deleting {
            let tags = self.tags().await?;
            if !self.account.is_ours(
                tags.iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            ) {
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
                    // An attempt whose answer got lost had its effect.
                    let now = self
                        .find()
                        .await?
                        .map(|found| found.stream_status().clone());
                    if now.is_some_and(|status| status != StreamStatus::Deleting) {
                        return Err(failed(Call("kinesis:DeleteStream", &self.what()), &error));
                    }
                }
                _ => {}
            }
        }
        let check = || async {
            Ok(self
                .find()
                .await?
                .map(|found| found.stream_status().as_str().to_string()))
        };
        self.account.until_done(&self.what(), check).await?;
        Ok(true)
    }
}

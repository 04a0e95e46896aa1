//! The client machine: an EC2 instance that runs the Kafka REST proxy.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{
    HttpTokensState, IamInstanceProfileSpecification, Instance, InstanceMetadataOptionsRequest,
    InstanceNetworkInterfaceSpecification, InstanceStateName, InstanceType, ResourceType, Tag,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::checksum;
use crate::base::error::{Error, Result};
use crate::clients::aws::call::{Call, CreateError, code, failed};
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::{ec2_tags, pairs, put_tags, tag_specification};
use crate::provision::aws::ec2_tags::{filter, tag_filters};
use crate::provision::aws::keys;
use crate::provision::aws::msk::cluster;
use crate::provision::aws::names;
use crate::provision::aws::names::Holder;
use crate::provision::aws::names::Member;
use crate::provision::aws::outputs;
use crate::provision::aws::placeholders;
use crate::provision::aws::run_command::{CommandOutcome, run_command};
use crate::provision::aws::templates;
use crate::provision::cost::CostItem;
use crate::provision::resource::{Observation, Resource};

const KEY: &str = keys::CLIENT;
/// Tag with the checksum of the user data, which cannot be read back as it was sent.
const USER_DATA_TAG: &str = "pinpipe:user-data";
/// Tag that says that the proxy has answered, and with which password.
const READY_TAG: &str = "pinpipe:ready";
/// Where the jar for IAM authentication is published.
const IAM_AUTH: &str = "https://repo1.maven.org/maven2/software/amazon/msk/aws-msk-iam-auth";
/// Disk of Amazon's image, in GiB.
const DISK_GIB: i32 = 8;

pub struct Client {
    pub account: Rc<Account>,
}

impl Client {
    fn display_name(&self) -> String {
        format!("client machine `{}`", self.name())
    }

    async fn find(&self) -> Result<Option<Instance>> {
        let request = self
            .account
            .ec2
            .describe_instances()
            .set_filters(Some(tag_filters(&self.account, KEY)));
        let found = request
            .send()
            .await
            .map_err(|error| failed(Call("ec2:DescribeInstances", &self.display_name()), &error))?;
        let instances = found
            .reservations()
            .iter()
            .flat_map(|reservation| reservation.instances());
        let tagged = instances
            .filter(|instance| is_alive(instance))
            .min_by_key(|instance| instance.instance_id().map(String::from));
        if let Some(instance) = tagged {
            return Ok(Some(instance.clone()));
        }
        // One that lost its tags is still known by its id, and would be paid for twice.
        let Some(id) = self.account.state.output(KEY, "id").await else {
            return Ok(None);
        };
        match self
            .account
            .ec2
            .describe_instances()
            .instance_ids(id)
            .send()
            .await
        {
            Ok(found) => {
                let mut instances = found
                    .reservations()
                    .iter()
                    .flat_map(|reservation| reservation.instances());
                Ok(instances.find(|instance| is_alive(instance)).cloned())
            }
            Err(error) if code(&error) == "InvalidInstanceID.NotFound" => Ok(None),
            Err(error) => Err(failed(
                Call("ec2:DescribeInstances", &self.display_name()),
                &error,
            )),
        }
    }

    /// What the machine does when it first starts.
    async fn user_data(&self) -> Result<String> {
        self.filled(
            &self
                .account
                .state
                .require_output(keys::CLUSTER, "bootstrap_servers")
                .await?,
        )
    }

    /// The checksum of what it does, whichever brokers of the cluster it is told of.
    async fn checksum(&self) -> Result<String> {
        let brokers = self
            .account
            .state
            .require_output(keys::CLUSTER, "bootstrap_servers")
            .await?;
        let text = self.filled(&cluster::domain(&brokers))?;
        Ok(checksum::short(&text))
    }

    fn filled(&self, brokers: &str) -> Result<String> {
        let client = &self.account.config.client;
        let mut names = placeholders::values(&self.account);
        let (kafka, scala, iam) = (
            &client.kafka_version,
            &client.scala_version,
            &client.iam_auth_version,
        );
        let confluent = &client.confluent_version;
        let series = confluent
            .rsplit_once('.')
            .map_or(confluent.as_str(), |(series, _)| series);
        names.extend([
            ("bootstrap-servers", brokers.to_string()),
            ("zookeeper", String::new()),
            ("proxy-user", outputs::USER.into()),
            ("kafka-url", format!("https://archive.apache.org/dist/kafka/{kafka}/kafka_{scala}-{kafka}.tgz")),
            ("iam-auth-url", format!("{IAM_AUTH}/{iam}/aws-msk-iam-auth-{iam}-all.jar")),
            ("iam-auth-sha512", client.iam_auth_sha512.clone()),
            ("confluent-url", format!("https://packages.confluent.io/archive/{series}/confluent-community-{confluent}.tar.gz")),
            ("confluent-sha512", client.confluent_sha512.clone()),
            ("confluent-version", confluent.clone()),
        ]);
        Ok(templates::render(templates::USER_DATA, &names))
    }

    /// The newest of Amazon's images with the configured name.
    async fn image(&self) -> Result<String> {
        let pattern = &self.account.config.client.image;
        let request = self
            .account
            .ec2
            .describe_images()
            .owners("amazon")
            .filters(filter("name", pattern))
            .filters(filter("state", "available"));
        let found = request
            .send()
            .await
            .map_err(|error| failed(Call("ec2:DescribeImages", &self.display_name()), &error))?;
        let newest = found
            .images()
            .iter()
            .max_by_key(|image| image.creation_date().map(String::from));
        newest
            .and_then(|image| image.image_id())
            .map(String::from)
            .ok_or_else(|| {
                Error::failed(format!(
                    "Amazon has no image named `{pattern}` in {}",
                    self.account.config.aws.region
                ))
                .hint(
                    "correct `client.image`; `aws ec2 describe-images --owners amazon` lists them",
                )
            })
    }

    /// What tells the proxy's password of now from earlier ones.
    async fn mark(&self) -> Option<String> {
        let mark = self
            .account
            .state
            .output(keys::PROXY_SECRET, "mark")
            .await?;
        mark.rsplit(' ').next().map(String::from)
    }

    /// Marks the machine as one whose proxy answers, with the password of now. A tag, so that
    /// it is known without the state too.
    async fn note_answer(&self, id: &str) -> Result<()> {
        let tag = Tag::builder()
            .key(READY_TAG)
            .value(self.mark().await.unwrap_or_else(|| "yes".into()))
            .build();
        let put = self
            .account
            .ec2
            .create_tags()
            .resources(id)
            .tags(tag)
            .send()
            .await;
        put.map_err(|error| failed(Call("ec2:CreateTags", &self.display_name()), &error))?;
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[("answered", id)])
            .await
    }

    /// Whether a machine that was just launched lives: one that AWS ended at once would be
    /// answered for its token again and again.
    async fn check_launch(&self, id: &str) -> Result<()> {
        let found = self
            .account
            .ec2
            .describe_instances()
            .instance_ids(id)
            .send()
            .await;
        let found = match found {
            Err(error) if code(&error) == "InvalidInstanceID.NotFound" => return Ok(()),
            found => found.map_err(|error| {
                failed(Call("ec2:DescribeInstances", &self.display_name()), &error)
            })?,
        };
        let Some(ended) = found
            .reservations()
            .iter()
            .flat_map(|reservation| reservation.instances())
            .find(|instance| !is_alive(instance))
        else {
            return Ok(());
        };
        self.account.state.remove_entry(KEY).await?;
        let reason = ended
            .state_reason()
            .and_then(|reason| reason.message())
            .unwrap_or("AWS gives no reason")
            .to_string();
        Err(Error::failed(format!("{} ended right after its launch", self.display_name()))
            .with_source(reason)
            .hint("usual causes: a quota of volumes, or no capacity in the zone; run the same command again to launch another one"))
    }

    fn tags(&self, checksum: &str) -> Vec<Tag> {
        let name = Tag::builder().key("Name").value(self.name()).build();
        let checksum = Tag::builder().key(USER_DATA_TAG).value(checksum).build();
        ec2_tags(&self.account, KEY)
            .into_iter()
            .chain([name, checksum])
            .collect()
    }

    async fn differences(&self, found: &Instance) -> Result<Vec<String>> {
        let wanted = &self.account.config.client;
        let mut fixed = Vec::new();
        let instance_type = found
            .instance_type()
            .map(InstanceType::as_str)
            .unwrap_or_default();
        if instance_type != wanted.instance_type {
            fixed.push(format!(
                "it is a {instance_type}, not a {}",
                wanted.instance_type
            ));
        }
        let tags = pairs(found.tags());
        let applied = tags
            .iter()
            .find(|(key, _)| *key == USER_DATA_TAG)
            .map(|(_, value)| *value);
        if self
            .account
            .state
            .output(keys::CLUSTER, "bootstrap_servers")
            .await
            .is_some()
            && applied.is_some()
            && applied != Some(self.checksum().await?.as_str())
        {
            fixed.push("it was set up with other versions, brokers or settings".into());
        }
        let group = self.account.state.output(Member::Client.key(), "id").await;
        let mut groups = found
            .network_interfaces()
            .iter()
            .flat_map(|interface| interface.groups());
        if group.is_some_and(|group| groups.all(|own| own.group_id() != Some(group.as_str()))) {
            fixed.push("it is not in the client's security group".into());
        }
        Ok(fixed)
    }
}

fn is_alive(instance: &Instance) -> bool {
    !matches!(
        state(instance),
        Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown) | None
    )
}

fn state(instance: &Instance) -> Option<&InstanceStateName> {
    instance.state().and_then(|state| state.name())
}

#[async_trait(?Send)]
impl Resource for Client {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "client"
    }

    fn name(&self) -> String {
        self.account.named("client")
    }

    fn depends_on(&self) -> Vec<String> {
        let needs = [
            keys::NETWORK,
            Member::Client.key(),
            keys::KEY_PAIR,
            keys::INSTANCE_PROFILE,
            Holder::Client.key(),
            keys::PROXY_SECRET,
            keys::CLUSTER,
        ];
        needs.map(String::from).to_vec()
    }

    fn recreated_with(&self) -> Vec<String> {
        vec![keys::KEY_PAIR.into(), Member::Client.key().into()]
    }

    fn cost_items(&self) -> Vec<CostItem> {
        vec![
            CostItem::new(&self.account.config.client.instance_type, 1),
            CostItem::new("ebs-gp2-gib", DISK_GIB),
        ]
    }

    async fn read(&self) -> Result<Observation> {
        let Some(found) = self.find().await? else {
            if self.account.state.entry(KEY).await.is_some() {
                self.account
                    .state
                    .record_outputs(KEY, &self.name(), &[("running", "no")])
                    .await?;
            }
            return Ok(Observation::missing());
        };
        let id = found.instance_id().unwrap_or_default();
        let is_running = state(&found) == Some(&InstanceStateName::Running);
        self.account
            .state
            .record_outputs(
                KEY,
                &self.name(),
                &[
                    ("id", id),
                    ("running", if is_running { "yes" } else { "no" }),
                ],
            )
            .await?;
        let fixed = self.differences(&found).await?;
        if !fixed.is_empty() {
            return Ok(Observation::replace(fixed));
        }
        if let Some(reason) = self
            .account
            .state
            .output(KEY, &format!("failed-{id}"))
            .await
        {
            return Ok(Observation::replace(vec![reason]));
        }
        match state(&found) {
            Some(InstanceStateName::Stopped) => {
                return Ok(Observation::from_drift(vec!["it is stopped".into()], ""));
            }
            Some(InstanceStateName::Running) => {}
            state => {
                return Ok(Observation::pending(
                    state.map_or("unknown", InstanceStateName::as_str),
                ));
            }
        }
        let tags = self.account.tag_differences(KEY, pairs(found.tags()));
        if !tags.is_empty() {
            return Ok(Observation::from_drift(tags, ""));
        }
        let tags = pairs(found.tags());
        let Some((_, ready)) = tags.iter().find(|(key, _)| *key == READY_TAG) else {
            return Ok(Observation::pending(
                "running; its proxy has not answered yet",
            ));
        };
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[("answered", id)])
            .await?;
        if self.mark().await.is_some_and(|mark| mark != *ready) {
            return Ok(Observation::from_drift(
                vec!["its proxy has an old password".into()],
                "",
            ));
        }
        Ok(Observation::in_sync(format!("{id}, running")))
    }

    async fn create(&self) -> Result<()> {
        let (state, config) = (&self.account.state, &self.account.config);
        let token = state.mark_creating(KEY, &self.name()).await?;
        let user_data = self.user_data().await?;
        let subnet = outputs::subnets(&self.account).await?.swap_remove(0);
        let interface = InstanceNetworkInterfaceSpecification::builder()
            .device_index(0)
            .associate_public_ip_address(true)
            .subnet_id(subnet)
            .groups(state.require_output(Member::Client.key(), "id").await?)
            .delete_on_termination(true)
            .build();
        let profile = names::profile_name(&self.account);
        let image = self.image().await?;
        let tags = tag_specification(&self.account, KEY, ResourceType::Instance);
        let tags = aws_sdk_ec2::types::TagSpecification::builder()
            .set_resource_type(tags.resource_type().cloned())
            .set_tags(Some(self.tags(&self.checksum().await?)))
            .build();
        let disk = tag_specification(&self.account, KEY, ResourceType::Volume);
        let make = || async {
            let request = self
                .account
                .ec2_once
                .run_instances()
                .client_token(&token)
                .image_id(&image)
                .min_count(1)
                .max_count(1);
            let request = request
                .instance_type(InstanceType::from(config.client.instance_type.as_str()))
                .key_name(self.account.named("key"))
                .iam_instance_profile(
                    IamInstanceProfileSpecification::builder()
                        .name(&profile)
                        .build(),
                )
                .network_interfaces(interface.clone())
                .metadata_options(
                    InstanceMetadataOptionsRequest::builder()
                        .http_tokens(HttpTokensState::Required)
                        .build(),
                )
                .tag_specifications(tags.clone())
                .tag_specifications(disk.clone())
                .user_data(STANDARD.encode(&user_data));
            let made = request.send().await.map_err(|error| {
                CreateError::new(Call("ec2:RunInstances", &self.display_name()), &error)
            })?;
            Ok(made
                .instances()
                .first()
                .and_then(|instance| instance.instance_id())
                .map(String::from))
        };
        let find = || async {
            self.find()
                .await
                .map(|found| found.map(|found| found.instance_id))
        };
        // EC2 sees a new instance profile only some seconds after IAM has made it.
        let is_unseen = |error: &Error| error.to_string().contains("Invalid IAM Instance Profile");
        let id = self
            .account
            .retry_until_visible(is_unseen, || self.account.create_idempotently(find, make))
            .await?;
        let id = id.unwrap_or_default();
        state
            .record_outputs(KEY, &self.name(), &[("id", &id)])
            .await?;
        self.check_launch(&id).await
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        let id = found.instance_id().unwrap_or_default();
        if state(&found) == Some(&InstanceStateName::Stopped) {
            let started = self
                .account
                .ec2
                .start_instances()
                .instance_ids(id)
                .send()
                .await;
            started.map_err(|error| {
                failed(Call("ec2:StartInstances", &self.display_name()), &error)
            })?;
        }
        if !self
            .account
            .tag_differences(KEY, pairs(found.tags()))
            .is_empty()
        {
            put_tags(&self.account, KEY, id).await?;
        }
        let tags = pairs(found.tags());
        let ready = tags
            .iter()
            .find(|(key, _)| *key == READY_TAG)
            .map(|(_, mark)| (*mark).to_string());
        if ready.is_some() && self.mark().await.is_some_and(|mark| Some(mark) != ready) {
            // The service reads its password when it starts.
            run_command(&self.account, id, "systemctl restart kafka-rest").await?;
            self.wait().await?;
        }
        Ok(())
    }

    /// Until the proxy answers on the machine itself: from outside only the API reaches it.
    async fn wait(&self) -> Result<()> {
        let script = templates::render(
            templates::PROXY_ANSWERS,
            &placeholders::values(&self.account),
        );
        let check = || async {
            let Some(found) = self.find().await? else {
                return Ok(None);
            };
            let id = found.instance_id().unwrap_or_default();
            match state(&found) {
                Some(InstanceStateName::Running) => {}
                Some(InstanceStateName::Stopped) => return Ok(None),
                state => {
                    return Ok(Some(
                        state
                            .map_or("unknown", InstanceStateName::as_str)
                            .to_string(),
                    ));
                }
            }
            match run_command(&self.account, id, &script).await? {
                CommandOutcome::Done(_) => {
                    self.note_answer(id).await?;
                    Ok(None)
                }
                CommandOutcome::Failed(reason) if reason.starts_with("user data failed") => {
                    self.account
                        .state
                        .record_outputs(KEY, &self.name(), &[(&format!("failed-{id}"), &reason)])
                        .await?;
                    Err(Error::failed(format!("{} could not be set up: {reason}", self.display_name()))
                        .hint("`aws ssm start-session` and /var/log/pinpipe-user-data.log say more; `pinpipe provision` makes it anew"))
                }
                CommandOutcome::Failed(reason) => Ok(Some(format!("setting itself up ({reason})"))),
                CommandOutcome::NotThere => {
                    Ok(Some("not registered with Systems Manager yet".into()))
                }
            }
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(found) = self.find().await? else {
            return Ok(false);
        };
        let id = found.instance_id().unwrap_or_default();
        let removed = self
            .account
            .ec2
            .terminate_instances()
            .instance_ids(id)
            .send()
            .await;
        removed.map_err(|error| {
            failed(Call("ec2:TerminateInstances", &self.display_name()), &error)
        })?;
        let check = || async {
            let found = self
                .account
                .ec2
                .describe_instances()
                .instance_ids(id)
                .send()
                .await;
            let found = match found {
                Err(error) if code(&error) == "InvalidInstanceID.NotFound" => return Ok(None),
                found => found.map_err(|error| {
                    failed(Call("ec2:DescribeInstances", &self.display_name()), &error)
                })?,
            };
            let instance = found
                .reservations()
                .iter()
                .flat_map(|reservation| reservation.instances())
                .next();
            let now = instance
                .and_then(state)
                .cloned()
                .unwrap_or(InstanceStateName::Terminated);
            Ok((now != InstanceStateName::Terminated).then(|| now.as_str().to_string()))
        };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}

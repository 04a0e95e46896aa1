//! The client machine: an EC2 instance that runs the Kafka REST proxy.

use std::rc::Rc;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_ec2::types::{
    HttpTokensState, IamInstanceProfileSpecification, Instance, InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification,
    InstanceStateName, InstanceType, ResourceType, Tag,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::network::{self, filter};
use super::role::Holder;
use super::security_group::{Member, ec2_tags, pairs, put_tags, tag_specification};
use super::{Reading, Resource, cluster, instance_profile, key_pair, proxy_secret};
use crate::aws::{Call, Unmade, failed};
use crate::error::{Error, Result};
use crate::provision::account::Account;
use crate::provision::asset;
use crate::provision::price::Priced;
use crate::provision::run_command::{Outcome, run_command};

pub const KEY: &str = "client";
/// Tag with the checksum of the user data, which cannot be read back as it was sent.
const USER_DATA_TAG: &str = "pinpipe:user-data";
/// Where the jar for IAM authentication is published.
const IAM_AUTH: &str = "https://repo1.maven.org/maven2/software/amazon/msk/aws-msk-iam-auth";
/// Disk of Amazon's image, in GiB.
const DISK_GIB: i32 = 8;

pub struct Client {
    pub account: Rc<Account>,
}

impl Client {
    fn what(&self) -> String {
        format!("client machine `{}`", self.name())
    }

    async fn find(&self) -> Result<Option<Instance>> {
        let config = &self.account.config;
        let request = self.account.ec2.describe_instances();
        let request = request.filters(filter("tag:pinpipe:id", &config.id)).filters(filter("tag:pinpipe:resource", KEY));
        let found = request.send().await.map_err(|error| failed(Call("ec2:DescribeInstances", &self.what()), &error))?;
        let instances = found.reservations().iter().flat_map(|reservation| reservation.instances());
        let alive = instances
            .filter(|instance| !matches!(state(instance), Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown) | None));
        Ok(alive.min_by_key(|instance| instance.instance_id().map(String::from)).cloned())
    }

    /// What the machine does when it first starts.
    async fn user_data(&self) -> Result<String> {
        let client = &self.account.config.client;
        let mut names = asset::names(&self.account);
        let (kafka, scala, iam) = (&client.kafka_version, &client.scala_version, &client.iam_auth_version);
        let confluent = &client.confluent_version;
        let series = confluent.rsplit_once('.').map_or(confluent.as_str(), |(series, _)| series);
        names.extend([
            ("bootstrap-servers", self.account.state.need(cluster::KEY, "bootstrap_servers").await?),
            ("zookeeper", String::new()),
            ("proxy-user", proxy_secret::USER.into()),
            ("kafka-url", format!("https://archive.apache.org/dist/kafka/{kafka}/kafka_{scala}-{kafka}.tgz")),
            ("iam-auth-url", format!("{IAM_AUTH}/{iam}/aws-msk-iam-auth-{iam}-all.jar")),
            ("iam-auth-sha512", client.iam_auth_sha512.clone()),
            ("confluent-url", format!("https://packages.confluent.io/archive/{series}/confluent-community-{confluent}.tar.gz")),
            ("confluent-sha512", client.confluent_sha512.clone()),
            ("confluent-version", confluent.clone()),
        ]);
        Ok(asset::filled(asset::USER_DATA, &names))
    }

    /// The newest of Amazon's images with the configured name.
    async fn image(&self) -> Result<String> {
        let pattern = &self.account.config.client.image;
        let request =
            self.account.ec2.describe_images().owners("amazon").filters(filter("name", pattern)).filters(filter("state", "available"));
        let found = request.send().await.map_err(|error| failed(Call("ec2:DescribeImages", &self.what()), &error))?;
        let newest = found.images().iter().max_by_key(|image| image.creation_date().map(String::from));
        newest.and_then(|image| image.image_id()).map(String::from).ok_or_else(|| {
            Error::failed(format!("Amazon has no image named `{pattern}` in {}", self.account.config.aws.region))
                .hint("correct `client.image`; `aws ec2 describe-images --owners amazon` lists them")
        })
    }

    fn tags(&self, user_data: &str) -> Vec<Tag> {
        let name = Tag::builder().key("Name").value(self.name()).build();
        let checksum = Tag::builder().key(USER_DATA_TAG).value(checksum(user_data)).build();
        ec2_tags(&self.account, KEY).into_iter().chain([name, checksum]).collect()
    }

    async fn differences(&self, found: &Instance) -> Result<Vec<String>> {
        let wanted = &self.account.config.client;
        let mut fixed = Vec::new();
        let instance_type = found.instance_type().map(InstanceType::as_str).unwrap_or_default();
        if instance_type != wanted.instance_type {
            fixed.push(format!("it is a {instance_type}, not a {}", wanted.instance_type));
        }
        let tags = pairs(found.tags());
        let applied = tags.iter().find(|(key, _)| *key == USER_DATA_TAG).map(|(_, value)| *value);
        if self.account.state.value(cluster::KEY, "bootstrap_servers").await.is_some()
            && applied != Some(checksum(&self.user_data().await?).as_str())
        {
            fixed.push("it was set up with other versions, brokers or settings".into());
        }
        let group = self.account.state.value(Member::Client.key(), "id").await;
        let mut groups = found.network_interfaces().iter().flat_map(|interface| interface.groups());
        if group.is_some_and(|group| groups.all(|own| own.group_id() != Some(group.as_str()))) {
            fixed.push("it is not in the client's security group".into());
        }
        Ok(fixed)
    }
}

fn state(instance: &Instance) -> Option<&InstanceStateName> {
    instance.state().and_then(|state| state.name())
}

/// The first half of SHA-256: enough to see a difference, short enough for a tag.
fn checksum(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
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

    fn needs(&self) -> Vec<String> {
        let needs = [
            network::KEY,
            Member::Client.key(),
            key_pair::KEY,
            instance_profile::KEY,
            Holder::Client.key(),
            proxy_secret::KEY,
            cluster::KEY,
        ];
        needs.map(String::from).to_vec()
    }

    fn falls_with(&self) -> Vec<String> {
        vec![key_pair::KEY.into()]
    }

    fn priced(&self) -> Vec<Priced> {
        vec![Priced::new(&self.account.config.client.instance_type, 1), Priced::new("ebs-gp2-gib", DISK_GIB)]
    }

    async fn read(&self) -> Result<Reading> {
        let Some(found) = self.find().await? else { return Ok(Reading::missing()) };
        let id = found.instance_id().unwrap_or_default();
        self.account.state.note(KEY, &self.name(), &[("id", id)]).await?;
        let fixed = self.differences(&found).await?;
        if !fixed.is_empty() {
            return Ok(Reading::recreate(fixed));
        }
        if let Some(reason) = self.account.state.value(KEY, &format!("failed-{id}")).await {
            return Ok(Reading::recreate(vec![reason]));
        }
        match state(&found) {
            Some(InstanceStateName::Stopped) => return Ok(Reading::compared(vec!["it is stopped".into()], "")),
            Some(InstanceStateName::Running) => {}
            state => return Ok(Reading::waiting(state.map_or("unknown", InstanceStateName::as_str))),
        }
        let tags = self.account.tag_differences(KEY, pairs(found.tags()));
        if !tags.is_empty() {
            return Ok(Reading::compared(tags, ""));
        }
        if self.account.state.value(KEY, "answered").await.as_deref() != Some(id) {
            return Ok(Reading::waiting("running; its proxy has not answered yet"));
        }
        Ok(Reading::good(format!("{id}, running")))
    }

    async fn create(&self) -> Result<()> {
        let (state, config) = (&self.account.state, &self.account.config);
        let token = state.begin(KEY, &self.name()).await?;
        let user_data = self.user_data().await?;
        let subnet = network::subnets(&self.account).await?.swap_remove(0);
        let interface = InstanceNetworkInterfaceSpecification::builder()
            .device_index(0)
            .associate_public_ip_address(true)
            .subnet_id(subnet)
            .groups(state.need(Member::Client.key(), "id").await?)
            .delete_on_termination(true)
            .build();
        let profile = instance_profile::profile_name(&self.account);
        let image = self.image().await?;
        let tags = tag_specification(&self.account, KEY, ResourceType::Instance);
        let tags = aws_sdk_ec2::types::TagSpecification::builder()
            .set_resource_type(tags.resource_type().cloned())
            .set_tags(Some(self.tags(&user_data)))
            .build();
        let make = || async {
            let request = self.account.ec2_once.run_instances().client_token(&token).image_id(&image).min_count(1).max_count(1);
            let request = request
                .instance_type(InstanceType::from(config.client.instance_type.as_str()))
                .key_name(self.account.named("key"))
                .iam_instance_profile(IamInstanceProfileSpecification::builder().name(&profile).build())
                .network_interfaces(interface.clone())
                .metadata_options(InstanceMetadataOptionsRequest::builder().http_tokens(HttpTokensState::Required).build())
                .tag_specifications(tags.clone())
                .user_data(STANDARD.encode(&user_data));
            let made = request.send().await.map_err(|error| Unmade::new(Call("ec2:RunInstances", &self.what()), &error))?;
            Ok(made.instances().first().and_then(|instance| instance.instance_id()).map(String::from))
        };
        let find = || async { self.find().await.map(|found| found.map(|found| found.instance_id)) };
        // EC2 sees a new instance profile only some seconds after IAM has made it.
        let is_unseen = |error: &Error| error.to_string().contains("Invalid IAM Instance Profile");
        let id = self.account.once_seen(is_unseen, || self.account.make_once(find, make)).await?;
        state.note(KEY, &self.name(), &[("id", &id.unwrap_or_default())]).await
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else { return Ok(()) };
        let id = found.instance_id().unwrap_or_default();
        if state(&found) == Some(&InstanceStateName::Stopped) {
            let started = self.account.ec2.start_instances().instance_ids(id).send().await;
            started.map_err(|error| failed(Call("ec2:StartInstances", &self.what()), &error))?;
        }
        if !self.account.tag_differences(KEY, pairs(found.tags())).is_empty() {
            put_tags(&self.account, KEY, id).await?;
        }
        Ok(())
    }

    /// Until the proxy answers on the machine itself: from outside only the API reaches it.
    async fn wait(&self) -> Result<()> {
        let script = asset::filled(asset::PROXY_ANSWERS, &asset::names(&self.account));
        let check = || async {
            let Some(found) = self.find().await? else { return Ok(None) };
            let id = found.instance_id().unwrap_or_default();
            match state(&found) {
                Some(InstanceStateName::Running) => {}
                Some(InstanceStateName::Stopped) => return Ok(None),
                state => return Ok(Some(state.map_or("unknown", InstanceStateName::as_str).to_string())),
            }
            match run_command(&self.account, id, &script).await? {
                Outcome::Done(_) => {
                    self.account.state.note(KEY, &self.name(), &[("answered", id)]).await?;
                    Ok(None)
                }
                Outcome::Failed(reason) if reason.starts_with("user data failed") => {
                    self.account.state.note(KEY, &self.name(), &[(&format!("failed-{id}"), &reason)]).await?;
                    Err(Error::failed(format!("{} could not be set up: {reason}", self.what()))
                        .hint("`aws ssm start-session` and /var/log/pinpipe-user-data.log say more; `pinpipe provision` makes it anew"))
                }
                Outcome::Failed(reason) => Ok(Some(format!("setting itself up ({reason})"))),
                Outcome::NotThere => Ok(Some("not registered with Systems Manager yet".into())),
            }
        };
        self.account.until_done(&self.what(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(found) = self.find().await? else { return Ok(false) };
        let id = found.instance_id().unwrap_or_default();
        let removed = self.account.ec2.terminate_instances().instance_ids(id).send().await;
        removed.map_err(|error| failed(Call("ec2:TerminateInstances", &self.what()), &error))?;
        let check = || async {
            let found = self.account.ec2.describe_instances().instance_ids(id).send().await;
            let found = match found {
                Err(error) if crate::aws::code(&error) == "InvalidInstanceID.NotFound" => return Ok(None),
                found => found.map_err(|error| failed(Call("ec2:DescribeInstances", &self.what()), &error))?,
            };
            let instance = found.reservations().iter().flat_map(|reservation| reservation.instances()).next();
            let now = instance.and_then(state).cloned().unwrap_or(InstanceStateName::Terminated);
            Ok((now != InstanceStateName::Terminated).then(|| now.as_str().to_string()))
        };
        self.account.until_done(&self.what(), check).await?;
        Ok(true)
    }
}

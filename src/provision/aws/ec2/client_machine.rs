//! The client machine: an EC2 instance that runs the Kafka REST Proxy.

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
use crate::clients::aws::call::{CallContext, CreateError, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::{ec2_tags, pairs, put_tags, tag_specification};
use crate::provision::aws::ec2_tags::{filter, tag_filters};
use crate::provision::aws::keys;
use crate::provision::aws::msk::cluster;
use crate::provision::aws::names;
use crate::provision::aws::names::GroupMember;
use crate::provision::aws::names::Principal;
use crate::provision::aws::outputs;
use crate::provision::aws::placeholders;
use crate::provision::aws::run_command::{CommandOutcome, run_command};
use crate::provision::aws::templates;
use crate::provision::cost::CostItem;
use crate::provision::resource::{Difference, Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::CLIENT;
/// Tag with the checksum of the user data, because `DescribeInstances` does not return user data.
const USER_DATA_TAG: &str = "pinpipe:user-data";
/// Tag of a machine whose proxy has responded. The value identifies the proxy's password.
const READY_TAG: &str = "pinpipe:ready";
/// Download location of the jar for IAM authentication.
const IAM_AUTH: &str = "https://repo1.maven.org/maven2/software/amazon/msk/aws-msk-iam-auth";
/// Size of the root volume of Amazon's image, in GiB.
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
        let response =
            request.send().await.call_context("ec2:DescribeInstances", &self.display_name())?;
        let instances =
            response.reservations().iter().flat_map(|reservation| reservation.instances());
        let tagged = instances
            .filter(|instance| is_alive(instance))
            .min_by_key(|instance| instance.instance_id().map(String::from));
        if let Some(instance) = tagged {
            return Ok(Some(instance.clone()));
        }
        // A machine that lost its tags is found by its id in the state. Otherwise, a second machine
        // would be launched and billed.
        let Some(id) = self.account.state.output(&outputs::CLIENT_ID).await else {
            return Ok(None);
        };
        match self.account.ec2.describe_instances().instance_ids(id).send().await {
            Ok(response) => {
                let mut instances =
                    response.reservations().iter().flat_map(|reservation| reservation.instances());
                Ok(instances.find(|instance| is_alive(instance)).cloned())
            }
            Err(error) if code(&error) == "InvalidInstanceID.NotFound" => Ok(None),
            Err(error) => Err(error.call_context("ec2:DescribeInstances", &self.display_name())),
        }
    }

    /// Returns the user data: the script that the machine runs at its first start.
    async fn user_data(&self) -> Result<String> {
        self.render(&self.account.state.require_output(&outputs::BOOTSTRAP_SERVERS).await?)
    }

    /// Returns the checksum of the user data. It does not depend on which brokers of the cluster
    /// are listed.
    async fn checksum(&self) -> Result<String> {
        let brokers = self.account.state.require_output(&outputs::BOOTSTRAP_SERVERS).await?;
        let text = self.render(&cluster::domain(&brokers))?;
        Ok(checksum::short(&text))
    }

    /// Renders the template of the user data with these brokers.
    fn render(&self, brokers: &str) -> Result<String> {
        let client = &self.account.config.client;
        let mut values = placeholders::values(&self.account);
        let (kafka, scala, iam) =
            (&client.kafka_version, &client.scala_version, &client.iam_auth_version);
        let confluent = &client.confluent_version;
        let series = confluent.rsplit_once('.').map_or(confluent.as_str(), |(series, _)| series);
        values.extend([
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
        Ok(templates::render(templates::USER_DATA, &values))
    }

    /// Returns the id of the newest Amazon image whose name matches `client.image`.
    ///
    /// # Errors
    /// The region has no such image.
    async fn image(&self) -> Result<String> {
        let pattern = &self.account.config.client.image;
        let request = self
            .account
            .ec2
            .describe_images()
            .owners("amazon")
            .filters(filter("name", pattern))
            .filters(filter("state", "available"));
        let response =
            request.send().await.call_context("ec2:DescribeImages", &self.display_name())?;
        let newest =
            response.images().iter().max_by_key(|image| image.creation_date().map(String::from));
        newest.and_then(|image| image.image_id()).map(String::from).ok_or_else(|| {
            Error::failed(format!(
                "cannot find an Amazon image named `{pattern}` in {}",
                self.account.config.aws.region
            ))
            .hint(
                "correct `client.image`: `aws ec2 describe-images --owners amazon` lists the \
                     images",
            )
        })
    }

    /// Returns the random identifier of the proxy's current password.
    async fn password_id(&self) -> Option<String> {
        let description = self.account.state.output(&outputs::PROXY_SECRET_MARK).await?;
        description.rsplit(' ').next().map(String::from)
    }

    /// Records that the proxy responds with the current password: in a tag, which is available
    /// without the state, and in the state.
    async fn record_response(&self, id: &str) -> Result<()> {
        let tag = Tag::builder()
            .key(READY_TAG)
            .value(self.password_id().await.unwrap_or_else(|| "yes".into()))
            .build();
        let response = self.account.ec2.create_tags().resources(id).tags(tag).send().await;
        response.call_context("ec2:CreateTags", &self.display_name())?;
        self.account.state.record(&self.name(), &outputs::CLIENT_ANSWERED, id).await
    }

    /// Checks that EC2 has not terminated a machine right after its launch. If it has, removes the
    /// entry with the client token from the state, because EC2 would return the terminated machine
    /// for the same token.
    async fn check_launch(&self, id: &str) -> Result<()> {
        let response = self.account.ec2.describe_instances().instance_ids(id).send().await;
        let description = match response {
            Err(error) if code(&error) == "InvalidInstanceID.NotFound" => return Ok(()),
            response => response.call_context("ec2:DescribeInstances", &self.display_name())?,
        };
        let Some(terminated) = description
            .reservations()
            .iter()
            .flat_map(|reservation| reservation.instances())
            .find(|instance| !is_alive(instance))
        else {
            return Ok(());
        };
        self.account.state.remove_entry(KEY).await?;
        let reason = terminated
            .state_reason()
            .and_then(|reason| reason.message())
            .unwrap_or("AWS gave no reason")
            .to_string();
        Err(Error::failed(format!("{} terminated right after its launch", self.display_name()))
            .with_source(reason)
            .hint(
                "usual causes: a volume quota, or no capacity in the zone; re-run the command to \
             launch another machine",
            ))
    }

    fn tags(&self, checksum: &str) -> Vec<Tag> {
        let name = Tag::builder().key("Name").value(self.name()).build();
        let checksum = Tag::builder().key(USER_DATA_TAG).value(checksum).build();
        ec2_tags(&self.account, KEY).into_iter().chain([name, checksum]).collect()
    }

    /// Describes the differences that only a new machine repairs.
    async fn differences(&self, instance: &Instance) -> Result<Vec<Difference>> {
        let desired = &self.account.config.client;
        let mut differences = Vec::new();
        let instance_type = instance.instance_type().map(InstanceType::as_str).unwrap_or_default();
        if instance_type != desired.instance_type {
            differences.push(Difference::field(
                "instance_type",
                instance_type,
                &desired.instance_type,
            ));
        }
        let tags = pairs(instance.tags());
        let applied = tags.iter().find(|(key, _)| *key == USER_DATA_TAG).map(|(_, value)| *value);
        if self.account.state.output(&outputs::BOOTSTRAP_SERVERS).await.is_some()
            && applied.is_some()
            && applied != Some(self.checksum().await?.as_str())
        {
            differences.push("set up with other versions, brokers or settings".into());
        }
        let group = self.account.state.output(&outputs::group_id(GroupMember::Client)).await;
        let mut groups =
            instance.network_interfaces().iter().flat_map(|interface| interface.groups());
        if group.is_some_and(|id| groups.all(|group| group.group_id() != Some(id.as_str()))) {
            differences.push("the client's security group is not attached".into());
        }
        Ok(differences)
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
        let dependencies = [
            keys::NETWORK,
            GroupMember::Client.key(),
            keys::KEY_PAIR,
            keys::INSTANCE_PROFILE,
            Principal::Client.key(),
            keys::PROXY_SECRET,
            keys::CLUSTER,
        ];
        dependencies.map(String::from).to_vec()
    }

    fn replaced_with(&self) -> Vec<String> {
        vec![keys::KEY_PAIR.into(), GroupMember::Client.key().into()]
    }

    fn cost_items(&self) -> Vec<CostItem> {
        vec![
            CostItem::new(&self.account.config.client.instance_type, 1),
            CostItem::new("ebs-gp2-gib", DISK_GIB),
        ]
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(instance) = self.find().await? else {
            if self.account.state.entry(KEY).await.is_some() {
                observed.found(self.name()).set(&outputs::CLIENT_RUNNING, false);
            }
            return Ok(Observation::missing());
        };
        let id = instance.instance_id().unwrap_or_default();
        let is_running = state(&instance) == Some(&InstanceStateName::Running);
        observed
            .found(self.name())
            .set(&outputs::CLIENT_ID, id)
            .set(&outputs::CLIENT_RUNNING, is_running);
        let differences = self.differences(&instance).await?;
        if !differences.is_empty() {
            return Ok(Observation::not_updatable(differences));
        }
        if let Some(reason) = self.account.state.output(&outputs::client_failure(id)).await {
            return Ok(Observation::not_updatable(vec![reason]));
        }
        match state(&instance) {
            Some(InstanceStateName::Stopped) => {
                return Ok(Observation::compared(vec!["the instance is stopped"], ""));
            }
            Some(InstanceStateName::Running) => {}
            state => {
                return Ok(Observation::pending(
                    state.map_or("unknown", InstanceStateName::as_str),
                ));
            }
        }
        let tag_differences = self.account.tag_differences(KEY, pairs(instance.tags()));
        if !tag_differences.is_empty() {
            return Ok(Observation::compared(tag_differences, ""));
        }
        let tags = pairs(instance.tags());
        let Some((_, ready)) = tags.iter().find(|(key, _)| *key == READY_TAG) else {
            return Ok(Observation::pending("running; the REST proxy has not responded yet"));
        };
        observed.found(self.name()).set(&outputs::CLIENT_ANSWERED, id);
        if self.password_id().await.is_some_and(|id| id != *ready) {
            return Ok(Observation::compared(vec!["the REST proxy uses an old password"], ""));
        }
        Ok(Observation::in_sync(format!("{id}, running")))
    }

    async fn create(&self) -> Result<()> {
        let (state, config) = (&self.account.state, &self.account.config);
        let token = state.mark_creating(KEY, &self.name()).await?;
        let user_data = self.user_data().await?;
        let subnet = self.account.state.require_output(&outputs::SUBNETS).await?.swap_remove(0);
        let interface = InstanceNetworkInterfaceSpecification::builder()
            .device_index(0)
            .associate_public_ip_address(true)
            .subnet_id(subnet)
            .groups(state.require_output(&outputs::group_id(GroupMember::Client)).await?)
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
        let launch = || async {
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
                    IamInstanceProfileSpecification::builder().name(&profile).build(),
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
            let reservation = request.send().await.map_err(|error| {
                CreateError::new("ec2:RunInstances", &self.display_name(), error)
            })?;
            Ok(reservation
                .instances()
                .first()
                .and_then(|instance| instance.instance_id())
                .map(String::from))
        };
        let find = || async {
            self.find().await.map(|instance| instance.map(|instance| instance.instance_id))
        };
        // EC2 sees a new instance profile only some seconds after IAM has created it. EC2 returns
        // this code for every invalid parameter, so the message is checked too.
        let is_unseen = |error: &Error| {
            error.has_service_code(&["InvalidParameterValue"])
                && error.service_message().contains("Invalid IAM Instance Profile")
        };
        let id = self
            .account
            .retry_until_visible(is_unseen, || self.account.create_idempotently(find, launch))
            .await?;
        let id = id.unwrap_or_default();
        state.record(&self.name(), &outputs::CLIENT_ID, id.as_str()).await?;
        self.check_launch(&id).await
    }

    async fn update(&self) -> Result<()> {
        let Some(instance) = self.find().await? else {
            return Ok(());
        };
        let id = instance.instance_id().unwrap_or_default();
        if state(&instance) == Some(&InstanceStateName::Stopped) {
            let response = self.account.ec2.start_instances().instance_ids(id).send().await;
            response.call_context("ec2:StartInstances", &self.display_name())?;
        }
        if !self.account.tag_differences(KEY, pairs(instance.tags())).is_empty() {
            put_tags(&self.account, KEY, id).await?;
        }
        let tags = pairs(instance.tags());
        let ready = tags.iter().find(|(key, _)| *key == READY_TAG).map(|(_, id)| (*id).to_string());
        if ready.is_some() && self.password_id().await.is_some_and(|id| Some(id) != ready) {
            // The proxy reads its password only when it starts.
            run_command(&self.account, id, "systemctl restart kafka-rest").await?;
            self.wait().await?;
        }
        Ok(())
    }

    /// Waits until the proxy responds to a request on the machine itself, because only the API can
    /// reach it from outside.
    async fn wait(&self) -> Result<()> {
        let script =
            templates::render(templates::PROXY_ANSWERS, &placeholders::values(&self.account));
        let check = || async {
            let Some(instance) = self.find().await? else {
                return Ok(None);
            };
            let id = instance.instance_id().unwrap_or_default();
            match state(&instance) {
                Some(InstanceStateName::Running) => {}
                Some(InstanceStateName::Stopped) => return Ok(None),
                state => {
                    return Ok(Some(
                        state.map_or("unknown", InstanceStateName::as_str).to_string(),
                    ));
                }
            }
            match run_command(&self.account, id, &script).await? {
                CommandOutcome::Done(_) => {
                    self.record_response(id).await?;
                    Ok(None)
                }
                CommandOutcome::Failed(reason) if reason.starts_with("user data failed") => {
                    self.account
                        .state
                        .record(&self.name(), &outputs::client_failure(id), &reason)
                        .await?;
                    Err(Error::failed(format!("cannot set up {}: {reason}", self.display_name()))
                        .hint(
                            "read /var/log/pinpipe-user-data.log in an SSM session (`aws ssm \
                                 start-session`); `pinpipe provision` replaces the machine",
                        ))
                }
                CommandOutcome::Failed(reason) => Ok(Some(format!("being set up ({reason})"))),
                CommandOutcome::Unregistered => {
                    Ok(Some("not registered with Systems Manager".into()))
                }
            }
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(instance) = self.find().await? else {
            return Ok(false);
        };
        let id = instance.instance_id().unwrap_or_default();
        let response = self.account.ec2.terminate_instances().instance_ids(id).send().await;
        response.call_context("ec2:TerminateInstances", &self.display_name())?;
        let check = || async {
            let response = self.account.ec2.describe_instances().instance_ids(id).send().await;
            let description = match response {
                Err(error) if code(&error) == "InvalidInstanceID.NotFound" => return Ok(None),
                response => response.call_context("ec2:DescribeInstances", &self.display_name())?,
            };
            let current = description
                .reservations()
                .iter()
                .flat_map(|reservation| reservation.instances())
                .next();
            let state = current.and_then(state).cloned().unwrap_or(InstanceStateName::Terminated);
            Ok((state != InstanceStateName::Terminated).then(|| state.as_str().to_string()))
        };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}

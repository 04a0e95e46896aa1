//! Security groups with their ingress rules.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{
    Filter, IpPermission, IpRange, ResourceType, SecurityGroup, SecurityGroupRule, UserIdGroupPair,
};

use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::tag_specification;
use crate::provision::aws::ec2_tags::{filter, tag_filters};
use crate::provision::aws::ec2_tags::{pairs, put_tags};
use crate::provision::aws::keys;
use crate::provision::aws::names::GroupMember;
use crate::provision::aws::names::PROXY_PORT;
use crate::provision::aws::network::ip_ranges;
use crate::provision::aws::outputs;
use crate::provision::resource::{Observation, Ownership, Resource};
use crate::provision::state::output::{ObservedOutputs, Output};

pub struct Group {
    pub member: GroupMember,
    pub account: Rc<Account>,
}

/// An ingress rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// TCP port; `None`: every protocol and port.
    port: Option<i32>,
    source: Source,
}

/// Source of the traffic that a rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Range(String),
    Group(String),
}

impl std::fmt::Display for Rule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => write!(formatter, "port {port}")?,
            None => write!(formatter, "all traffic")?,
        }
        match &self.source {
            Source::Range(range) => write!(formatter, " from {range}"),
            Source::Group(group) => write!(formatter, " from {group}"),
        }
    }
}

impl Rule {
    /// Converts a rule of EC2; `None` if its source is neither an IPv4 address range nor a group.
    fn parse(rule: &SecurityGroupRule) -> Option<Self> {
        let group = rule.referenced_group_info().and_then(|group| group.group_id());
        let source = match (rule.cidr_ipv4(), group) {
            (Some(range), _) => Source::Range(range.into()),
            (None, Some(group)) => Source::Group(group.into()),
            (None, None) => return None,
        };
        let port = if rule.ip_protocol() == Some("-1") { None } else { rule.from_port() };
        Some(Self { port, source })
    }

    fn ip_permission(&self) -> IpPermission {
        let permission = match self.port {
            Some(port) => IpPermission::builder().ip_protocol("tcp").from_port(port).to_port(port),
            None => IpPermission::builder().ip_protocol("-1"),
        };
        match &self.source {
            Source::Range(range) => permission.ip_ranges(IpRange::builder().cidr_ip(range).build()),
            Source::Group(group) => {
                permission.user_id_group_pairs(UserIdGroupPair::builder().group_id(group).build())
            }
        }
        .build()
    }
}

impl Group {
    /// Description in AWS. It cannot be changed after creation.
    fn description(&self) -> &'static str {
        match self.member {
            GroupMember::Client => {
                "pinpipe: the machine that runs the Kafka REST proxy, and the connector"
            }
            GroupMember::Cluster => "pinpipe: the brokers of the MSK cluster",
            GroupMember::Airflow => "pinpipe: Managed Airflow",
        }
    }

    fn display_name(&self) -> String {
        format!("security group `{}`", self.name())
    }

    /// Finds the group with this name in the VPC, managed by pinpipe or not.
    async fn find(&self) -> Result<Option<SecurityGroup>> {
        let Some(vpc) = self.account.state.output(&outputs::VPC).await else {
            return Ok(None);
        };
        Ok(self
            .describe(vec![filter("vpc-id", vpc), filter("group-name", self.name())])
            .await?
            .into_iter()
            .next())
    }

    /// Finds this pipeline's groups in other VPCs, which an earlier configuration may have used.
    async fn in_other_vpcs(&self) -> Result<Vec<SecurityGroup>> {
        let vpc = self.account.state.output(&outputs::VPC).await;
        Ok(self
            .describe(tag_filters(&self.account, self.member.key()))
            .await?
            .into_iter()
            .filter(|group| group.vpc_id != vpc)
            .collect())
    }

    /// Ids of this pipeline's groups in other VPCs that are still in use.
    fn groups_in_use(&self) -> Output<Vec<String>> {
        Output::new(self.member.key(), "kept")
    }

    /// Groups in other VPCs, except those that the state lists as in use.
    async fn orphans(&self) -> Result<Vec<SecurityGroup>> {
        let in_use = self.account.state.output(&self.groups_in_use()).await.unwrap_or_default();
        let is_in_use =
            |group: &SecurityGroup| in_use.iter().any(|id| Some(id.as_str()) == group.group_id());
        Ok(self.in_other_vpcs().await?.into_iter().filter(|group| !is_in_use(group)).collect())
    }

    /// Deletes groups in other VPCs. A group in use is kept and listed in the state.
    async fn remove_orphans(&self) -> Result<()> {
        for group in self.orphans().await? {
            let id = group.group_id().unwrap_or_default();
            if !self.try_remove(id).await? {
                tracing::warn!(
                    "the security group `{id}` in another VPC is in use: it is kept until \
                     `pinpipe destroy`"
                );
                let mut in_use =
                    self.account.state.output(&self.groups_in_use()).await.unwrap_or_default();
                in_use.push(id.to_string());
                self.account.state.record(&self.name(), &self.groups_in_use(), in_use).await?;
            }
        }
        Ok(())
    }

    /// Deletes a group; `false` if it is in use.
    async fn try_remove(&self, id: &str) -> Result<bool> {
        match self.account.ec2.delete_security_group().group_id(id).send().await {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == "InvalidGroup.NotFound" => Ok(true),
            Err(error) if code(&error) == "DependencyViolation" => Ok(false),
            Err(error) => Err(error.call_context("ec2:DeleteSecurityGroup", &self.display_name())),
        }
    }

    async fn describe(&self, filters: Vec<Filter>) -> Result<Vec<SecurityGroup>> {
        let request = self.account.ec2.describe_security_groups().set_filters(Some(filters));
        let response = request
            .send()
            .await
            .call_context("ec2:DescribeSecurityGroups", &self.display_name())?;
        Ok(response.security_groups.unwrap_or_default())
    }

    /// Deletes a group as soon as it is no longer in use.
    async fn remove(&self, group: &SecurityGroup) -> Result<()> {
        let id = group.group_id().unwrap_or_default();
        // Network interfaces are deleted some time after the resources that used them.
        let check = || async { Ok((!self.try_remove(id).await?).then(|| "in use".to_string())) };
        self.account.wait_until(&self.display_name(), check).await
    }

    /// Returns the rules of the group with the id `own_id`.
    async fn desired_rules(&self, own_id: &str) -> Result<Vec<Rule>> {
        let client = &self.account.config.client;
        let proxy_from = match self.member {
            GroupMember::Client => ip_ranges::resolve(&self.account, &client.proxy_from).await?,
            GroupMember::Cluster | GroupMember::Airflow => Vec::new(),
        };
        let rules = |port: i32, ranges: &[String]| {
            let rule = move |range: &String| Rule {
                port: Some(port),
                source: Source::Range(range.clone()),
            };
            ranges.iter().map(rule).collect::<Vec<_>>()
        };
        let from_group = |id: String| Rule { port: None, source: Source::Group(id) };
        Ok(match self.member {
            GroupMember::Client => {
                [rules(PROXY_PORT, &proxy_from), rules(22, &client.ssh_from)].concat()
            }
            GroupMember::Cluster => {
                let client =
                    self.account.state.output(&outputs::group_id(GroupMember::Client)).await;
                client.into_iter().map(from_group).collect()
            }
            // MWAA requires a rule that allows traffic within the group.
            GroupMember::Airflow => vec![from_group(own_id.into())],
        })
    }

    /// Returns the missing rules, and the managed rules that are not in the configuration, with
    /// their ids. Rules without pinpipe's tags are not managed and are kept.
    async fn rule_differences(&self, id: &str) -> Result<(Vec<Rule>, Vec<(String, Rule)>)> {
        let request =
            self.account.ec2.describe_security_group_rules().filters(filter("group-id", id));
        let response: Result<Vec<SecurityGroupRule>, _> =
            request.into_paginator().items().send().collect().await;
        let rules =
            response.call_context("ec2:DescribeSecurityGroupRules", &self.display_name())?;
        let ingress: Vec<&SecurityGroupRule> =
            rules.iter().filter(|rule| rule.is_egress() == Some(false)).collect();
        let existing: Vec<Rule> = ingress.iter().filter_map(|rule| Rule::parse(rule)).collect();
        let desired = self.desired_rules(id).await?;
        let managed = ingress.iter().filter(|rule| self.account.is_managed(pairs(rule.tags())));
        let managed = managed.filter_map(|rule| {
            Some((rule.security_group_rule_id()?.to_string(), Rule::parse(rule)?))
        });
        let obsolete = managed.filter(|(_, rule)| !desired.contains(rule)).collect();
        Ok((desired.into_iter().filter(|rule| !existing.contains(rule)).collect(), obsolete))
    }
}

#[async_trait(?Send)]
impl Resource for Group {
    fn key(&self) -> String {
        self.member.key().into()
    }

    fn kind(&self) -> &'static str {
        "security-group"
    }

    fn name(&self) -> String {
        match self.member {
            GroupMember::Client => self.account.named("client-group"),
            GroupMember::Cluster => self.account.named("cluster-group"),
            GroupMember::Airflow => self.account.named("airflow-group"),
        }
    }

    fn depends_on(&self) -> Vec<String> {
        match self.member {
            GroupMember::Cluster => vec![keys::NETWORK.into(), GroupMember::Client.key().into()],
            GroupMember::Client | GroupMember::Airflow => vec![keys::NETWORK.into()],
        }
    }

    fn replaced_with(&self) -> Vec<String> {
        match self.member {
            // The rule of the cluster's group refers to the client's group.
            GroupMember::Cluster => vec![GroupMember::Client.key().into()],
            GroupMember::Client | GroupMember::Airflow => Vec::new(),
        }
    }

    fn is_enabled(&self) -> bool {
        self.member != GroupMember::Airflow || self.account.config.airflow.enabled
    }

    async fn may_be_orphaned(&self) -> bool {
        true
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let (found, orphans) = (self.find().await?, self.orphans().await?);
        let is_managed =
            found.as_ref().is_some_and(|group| self.account.is_managed(pairs(group.tags())));
        if let Some(group) = orphans.first().filter(|_| !is_managed) {
            if found.is_some() {
                // An unmanaged group in the configured VPC already has the name.
                return Ok(Observation {
                    ownership: Ownership::NameConflict,
                    ..Observation::unmanaged()
                });
            }
            observed
                .found(self.name())
                .set(&outputs::group_id(self.member), group.group_id().unwrap_or_default());
            return Ok(Observation::not_updatable(vec![format!(
                "the security group is in another VPC, {}",
                group.vpc_id().unwrap_or_default()
            )]));
        }
        let Some(group) = found else {
            return Ok(Observation::missing());
        };
        let tags = pairs(group.tags());
        let id = group.group_id().unwrap_or_default();
        // The id of an unmanaged group is recorded too: with `--skip`, other resources use the
        // group unchanged.
        if is_managed || self.is_enabled() {
            observed.found(self.name()).set(&outputs::group_id(self.member), id);
        }
        if !is_managed {
            return Ok(Observation::unmanaged());
        }
        let mut differences = self.account.tag_differences(&self.key(), tags);
        differences.extend(orphans.iter().map(|group| {
            format!(
                "another security group of this pipeline is in {}",
                group.vpc_id().unwrap_or_default()
            )
            .into()
        }));
        let (missing, obsolete) = self.rule_differences(id).await?;
        differences
            .extend(missing.iter().map(|rule| format!("the rule `{rule}` is missing").into()));
        differences.extend(obsolete.iter().map(|(_, rule)| {
            format!("the rule `{rule}` is no longer in the configuration").into()
        }));
        Ok(Observation::compared(differences, id))
    }

    async fn create(&self) -> Result<()> {
        let vpc = self.account.state.require_output(&outputs::VPC).await?;
        let tags = tag_specification(&self.account, &self.key(), ResourceType::SecurityGroup);
        let request = self
            .account
            .ec2
            .create_security_group()
            .group_name(self.name())
            .description(self.description())
            .vpc_id(vpc);
        match request.tag_specifications(tags).send().await {
            Ok(response) => {
                self.account
                    .state
                    .record(
                        &self.name(),
                        &outputs::group_id(self.member),
                        response.group_id().unwrap_or_default(),
                    )
                    .await
            }
            // An earlier attempt whose response was lost has created the group.
            Err(error) if code(&error) == "InvalidGroup.Duplicate" => Ok(()),
            Err(error) => Err(error.call_context("ec2:CreateSecurityGroup", &self.display_name())),
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(group) = self.find().await? else {
            return Ok(());
        };
        let id = group.group_id().unwrap_or_default();
        if !self.account.tag_differences(&self.key(), pairs(group.tags())).is_empty() {
            put_tags(&self.account, &self.key(), id).await?;
        }
        let (missing, obsolete) = self.rule_differences(id).await?;
        for rule in missing {
            let tags =
                tag_specification(&self.account, &self.key(), ResourceType::SecurityGroupRule);
            let request = self
                .account
                .ec2
                .authorize_security_group_ingress()
                .group_id(id)
                .ip_permissions(rule.ip_permission());
            match request.tag_specifications(tags).send().await {
                Ok(_) => {}
                Err(error) if code(&error) == "InvalidPermission.Duplicate" => {}
                Err(error) => {
                    return Err(error
                        .call_context("ec2:AuthorizeSecurityGroupIngress", &self.display_name()));
                }
            }
        }
        for (rule, _) in obsolete {
            let request = self
                .account
                .ec2
                .revoke_security_group_ingress()
                .group_id(id)
                .security_group_rule_ids(rule);
            match request.send().await {
                Err(error) if code(&error) != "InvalidSecurityGroupRuleId.NotFound" => {
                    return Err(
                        error.call_context("ec2:RevokeSecurityGroupIngress", &self.display_name())
                    );
                }
                _ => {}
            }
        }
        if self.member == GroupMember::Client {
            // A rule of the cluster's group refers to the client's group, so the cluster's group
            // must be deleted first.
            let cluster = Self { member: GroupMember::Cluster, account: self.account.clone() };
            cluster.remove_orphans().await?;
        }
        self.remove_orphans().await
    }

    async fn delete(&self) -> Result<bool> {
        let mut managed = self.in_other_vpcs().await?;
        managed.extend(
            self.find().await?.filter(|group| self.account.is_managed(pairs(group.tags()))),
        );
        for group in &managed {
            self.remove(group).await?;
        }
        Ok(!managed.is_empty())
    }
}

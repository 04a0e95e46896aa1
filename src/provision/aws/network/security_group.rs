//! Security groups, with the rules that let their members be reached.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{
    Filter, IpPermission, IpRange, ResourceType, SecurityGroup, SecurityGroupRule, UserIdGroupPair,
};

use crate::base::error::Result;
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::tag_specification;
use crate::provision::aws::ec2_tags::{filter, tag_filters};
use crate::provision::aws::ec2_tags::{pairs, put_tags};
use crate::provision::aws::keys;
use crate::provision::aws::names::Member;
use crate::provision::aws::names::PROXY_PORT;
use crate::provision::aws::network::ip_ranges;
use crate::provision::resource::{Observation, Ownership, Resource};

/// What the state calls groups of ours in other VPCs that somebody is in.
const KEPT: &str = "kept";

pub struct Group {
    pub member: Member,
    pub account: Rc<Account>,
}

/// A rule for traffic that comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// `None`: every protocol and port.
    port: Option<i32>,
    from: From,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Range(String),
    Group(String),
}

impl std::fmt::Display for Rule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => write!(formatter, "port {port}")?,
            None => write!(formatter, "all traffic")?,
        }
        match &self.from {
            From::Range(range) => write!(formatter, " from {range}"),
            From::Group(group) => write!(formatter, " from {group}"),
        }
    }
}

impl Rule {
    fn of(found: &SecurityGroupRule) -> Option<Self> {
        let group = found
            .referenced_group_info()
            .and_then(|group| group.group_id());
        let from = match (found.cidr_ipv4(), group) {
            (Some(range), _) => From::Range(range.into()),
            (None, Some(group)) => From::Group(group.into()),
            (None, None) => return None,
        };
        let port = if found.ip_protocol() == Some("-1") {
            None
        } else {
            found.from_port()
        };
        Some(Self { port, from })
    }

    fn data_loss(&self) -> IpPermission {
        let data_loss = match self.port {
            Some(port) => IpPermission::builder()
                .ip_protocol("tcp")
                .from_port(port)
                .to_port(port),
            None => IpPermission::builder().ip_protocol("-1"),
        };
        match &self.from {
            From::Range(range) => data_loss.ip_ranges(IpRange::builder().cidr_ip(range).build()),
            From::Group(group) => {
                data_loss.user_id_group_pairs(UserIdGroupPair::builder().group_id(group).build())
            }
        }
        .build()
    }
}

impl Group {
    fn description(&self) -> &'static str {
        match self.member {
            Member::Client => {
                "pinpipe: the machine that runs the Kafka REST proxy, and the connector"
            }
            Member::Cluster => "pinpipe: the brokers of the MSK cluster",
            Member::Airflow => "pinpipe: Managed Airflow",
        }
    }

    fn display_name(&self) -> String {
        format!("security group `{}`", self.name())
    }

    /// The group of that name in the VPC, whosever it is.
    async fn find(&self) -> Result<Option<SecurityGroup>> {
        let Some(vpc) = self.account.state.output(keys::NETWORK, "vpc").await else {
            return Ok(None);
        };
        Ok(self
            .described(vec![
                filter("vpc-id", vpc),
                filter("group-name", self.name()),
            ])
            .await?
            .into_iter()
            .next())
    }

    /// Ours in other VPCs: the configuration may have named another one since.
    async fn elsewhere(&self) -> Result<Vec<SecurityGroup>> {
        let vpc = self.account.state.output(keys::NETWORK, "vpc").await;
        Ok(self
            .described(tag_filters(&self.account, self.member.key()))
            .await?
            .into_iter()
            .filter(|group| group.vpc_id != vpc)
            .collect())
    }

    /// Those of them that nobody is in, as far as is known.
    async fn strays(&self) -> Result<Vec<SecurityGroup>> {
        let kept = self
            .account
            .state
            .output(self.member.key(), KEPT)
            .await
            .unwrap_or_default();
        let is_kept =
            |group: &SecurityGroup| kept.split(',').any(|id| Some(id) == group.group_id());
        Ok(self
            .elsewhere()
            .await?
            .into_iter()
            .filter(|group| !is_kept(group))
            .collect())
    }

    /// Removes what an earlier run left in another VPC, unless somebody is in it.
    async fn remove_strays(&self) -> Result<()> {
        for group in self.strays().await? {
            let id = group.group_id().unwrap_or_default();
            if !self.is_removed(id).await? {
                tracing::warn!(
                    "the security group `{id}` in another VPC is in use: it stays until `pinpipe destroy`"
                );
                let kept = self
                    .account
                    .state
                    .output(self.member.key(), KEPT)
                    .await
                    .unwrap_or_default();
                self.account
                    .state
                    .record_outputs(
                        &self.key(),
                        &self.name(),
                        &[(KEPT, &format!("{kept},{id}"))],
                    )
                    .await?;
            }
        }
        Ok(())
    }

    /// Removes a group; `false`: something is in it.
    async fn is_removed(&self, id: &str) -> Result<bool> {
        match self
            .account
            .ec2
            .delete_security_group()
            .group_id(id)
            .send()
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == "InvalidGroup.NotFound" => Ok(true),
            Err(error) if code(&error) == "DependencyViolation" => Ok(false),
            Err(error) => Err(failed(
                Call("ec2:DeleteSecurityGroup", &self.display_name()),
                &error,
            )),
        }
    }

    async fn described(&self, filters: Vec<Filter>) -> Result<Vec<SecurityGroup>> {
        let request = self
            .account
            .ec2
            .describe_security_groups()
            .set_filters(Some(filters));
        let found = request.send().await.map_err(|error| {
            failed(
                Call("ec2:DescribeSecurityGroups", &self.display_name()),
                &error,
            )
        })?;
        Ok(found.security_groups.unwrap_or_default())
    }

    /// Removes a group as soon as nothing is in it any more.
    async fn remove(&self, group: &SecurityGroup) -> Result<()> {
        let id = group.group_id().unwrap_or_default();
        // Network interfaces of what used it go some time after their owners.
        let check = || async { Ok((!self.is_removed(id).await?).then(|| "in use".to_string())) };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn wanted_rules(&self) -> Result<Vec<Rule>> {
        let client = &self.account.config.client;
        let proxy_from = match self.member {
            Member::Client => ip_ranges::resolved(&self.account, &client.proxy_from).await?,
            Member::Cluster | Member::Airflow => Vec::new(),
        };
        let from = |port: i32, ranges: &[String]| {
            let rule = move |range: &String| Rule {
                port: Some(port),
                from: From::Range(range.clone()),
            };
            ranges.iter().map(rule).collect::<Vec<_>>()
        };
        Ok(match self.member {
            Member::Client => [from(PROXY_PORT, &proxy_from), from(22, &client.ssh_from)].concat(),
            Member::Cluster => {
                let group = self.account.state.output(Member::Client.key(), "id").await;
                group
                    .map(|group| Rule {
                        port: None,
                        from: From::Group(group),
                    })
                    .into_iter()
                    .collect()
            }
            Member::Airflow => {
                // Its parts talk to each other.
                let own = self.account.state.output(Member::Airflow.key(), "id").await;
                own.map(|group| Rule {
                    port: None,
                    from: From::Group(group),
                })
                .into_iter()
                .collect()
            }
        })
    }

    /// Rules that are missing, and ids of rules of ours that are not wanted. Rules that
    /// somebody else added carry no tag of ours and stay.
    async fn rule_differences(&self, id: &str) -> Result<(Vec<Rule>, Vec<(String, Rule)>)> {
        let request = self
            .account
            .ec2
            .describe_security_group_rules()
            .filters(filter("group-id", id));
        let found: Result<Vec<SecurityGroupRule>, _> =
            request.into_paginator().items().send().collect().await;
        let found = found.map_err(|error| {
            failed(
                Call("ec2:DescribeSecurityGroupRules", &self.display_name()),
                &error,
            )
        })?;
        let incoming: Vec<&SecurityGroupRule> = found
            .iter()
            .filter(|rule| rule.is_egress() == Some(false))
            .collect();
        let there: Vec<Rule> = incoming.iter().filter_map(|rule| Rule::of(rule)).collect();
        let wanted = self.wanted_rules().await?;
        let ours = incoming
            .iter()
            .filter(|rule| self.account.is_ours(pairs(rule.tags())));
        let unwanted = ours
            .filter_map(|rule| Some((rule.security_group_rule_id()?.to_string(), Rule::of(rule)?)));
        let unwanted = unwanted
            .filter(|(_, rule)| !wanted.contains(rule))
            .collect();
        Ok((
            wanted
                .into_iter()
                .filter(|rule| !there.contains(rule))
                .collect(),
            unwanted,
        ))
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
            Member::Client => self.account.named("client-group"),
            Member::Cluster => self.account.named("cluster-group"),
            Member::Airflow => self.account.named("airflow-group"),
        }
    }

    fn depends_on(&self) -> Vec<String> {
        match self.member {
            Member::Cluster => vec![keys::NETWORK.into(), Member::Client.key().into()],
            Member::Client | Member::Airflow => vec![keys::NETWORK.into()],
        }
    }

    fn recreated_with(&self) -> Vec<String> {
        match self.member {
            // Its rule names the client's.
            Member::Cluster => vec![Member::Client.key().into()],
            Member::Client | Member::Airflow => Vec::new(),
        }
    }

    fn is_enabled(&self) -> bool {
        self.member != Member::Airflow || self.account.config.airflow.enabled
    }

    async fn may_be_orphaned(&self) -> bool {
        true
    }

    async fn read(&self) -> Result<Observation> {
        let (found, strays) = (self.find().await?, self.strays().await?);
        let is_here = found
            .as_ref()
            .is_some_and(|group| self.account.is_ours(pairs(group.tags())));
        if let Some(group) = strays.first().filter(|_| !is_here) {
            if found.is_some() {
                // The name is taken by somebody else there.
                return Ok(Observation {
                    ownership: Ownership::NameConflict,
                    ..Observation::unmanaged()
                });
            }
            self.account
                .state
                .record_outputs(
                    &self.key(),
                    &self.name(),
                    &[("id", group.group_id().unwrap_or_default())],
                )
                .await?;
            return Ok(Observation::replace(vec![format!(
                "it is in another VPC, {}",
                group.vpc_id().unwrap_or_default()
            )]));
        }
        let Some(group) = found else {
            return Ok(Observation::missing());
        };
        let tags = pairs(group.tags());
        let id = group.group_id().unwrap_or_default();
        // Noted of somebody else's too: who leaves it out uses it as it is.
        if is_here || self.is_enabled() {
            self.account
                .state
                .record_outputs(&self.key(), &self.name(), &[("id", id)])
                .await?;
        }
        if !is_here {
            return Ok(Observation::unmanaged());
        }
        let mut differences = self.account.tag_differences(&self.key(), tags);
        differences.extend(strays.iter().map(|group| {
            format!(
                "another of ours is in {}",
                group.vpc_id().unwrap_or_default()
            )
        }));
        let (missing, unwanted) = self.rule_differences(id).await?;
        differences.extend(
            missing
                .iter()
                .map(|rule| format!("the rule `{rule}` is missing")),
        );
        differences.extend(
            unwanted
                .iter()
                .map(|(_, rule)| format!("the rule `{rule}` is not wanted any more")),
        );
        Ok(Observation::from_drift(differences, id))
    }

    async fn create(&self) -> Result<()> {
        let vpc = self
            .account
            .state
            .require_output(keys::NETWORK, "vpc")
            .await?;
        let tags = tag_specification(&self.account, &self.key(), ResourceType::SecurityGroup);
        let request = self
            .account
            .ec2
            .create_security_group()
            .group_name(self.name())
            .description(self.description())
            .vpc_id(vpc);
        match request.tag_specifications(tags).send().await {
            Ok(made) => {
                self.account
                    .state
                    .record_outputs(
                        &self.key(),
                        &self.name(),
                        &[("id", made.group_id().unwrap_or_default())],
                    )
                    .await
            }
            // An earlier attempt had its effect.
            Err(error) if code(&error) == "InvalidGroup.Duplicate" => Ok(()),
            Err(error) => Err(failed(
                Call("ec2:CreateSecurityGroup", &self.display_name()),
                &error,
            )),
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(group) = self.find().await? else {
            return Ok(());
        };
        let id = group.group_id().unwrap_or_default();
        if !self
            .account
            .tag_differences(&self.key(), pairs(group.tags()))
            .is_empty()
        {
            put_tags(&self.account, &self.key(), id).await?;
        }
        let (missing, unwanted) = self.rule_differences(id).await?;
        for rule in missing {
            let tags =
                tag_specification(&self.account, &self.key(), ResourceType::SecurityGroupRule);
            let request = self
                .account
                .ec2
                .authorize_security_group_ingress()
                .group_id(id)
                .ip_permissions(rule.data_loss());
            match request.tag_specifications(tags).send().await {
                Ok(_) => {}
                Err(error) if code(&error) == "InvalidPermission.Duplicate" => {}
                Err(error) => {
                    return Err(failed(
                        Call("ec2:AuthorizeSecurityGroupIngress", &self.display_name()),
                        &error,
                    ));
                }
            }
        }
        for (rule, _) in unwanted {
            let request = self
                .account
                .ec2
                .revoke_security_group_ingress()
                .group_id(id)
                .security_group_rule_ids(rule);
            match request.send().await {
                Err(error) if code(&error) != "InvalidSecurityGroupRuleId.NotFound" => {
                    return Err(failed(
                        Call("ec2:RevokeSecurityGroupIngress", &self.display_name()),
                        &error,
                    ));
                }
                _ => {}
            }
        }
        if self.member == Member::Client {
            // A rule of the cluster's names the client's, which cannot go before it.
            let cluster = Self {
                member: Member::Cluster,
                account: self.account.clone(),
            };
            cluster.remove_strays().await?;
        }
        self.remove_strays().await
    }

    async fn delete(&self) -> Result<bool> {
        let mut ours = self.elsewhere().await?;
        ours.extend(
            self.find()
                .await?
                .filter(|group| self.account.is_ours(pairs(group.tags()))),
        );
        for group in &ours {
            self.remove(group).await?;
        }
        Ok(!ours.is_empty())
    }
}

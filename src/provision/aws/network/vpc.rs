//! The existing VPC and its subnets, which pinpipe uses and never changes.

use std::collections::BTreeSet;
use std::rc::Rc;

use async_trait::async_trait;

use crate::base::error::{Error, Result};
use crate::clients::aws::call::CallContext;
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::filter;
use crate::provision::aws::keys;
use crate::provision::aws::outputs;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::NETWORK;
/// Number of availability zones over which MSK spreads a cluster.
const ZONES: std::ops::RangeInclusive<usize> = 2..=3;

pub struct Network {
    pub account: Rc<Account>,
}

impl Network {
    async fn vpc(&self) -> Result<String> {
        let configured = &self.account.config.network.vpc;
        let request = self.account.ec2.describe_vpcs();
        let request = match configured.as_str() {
            "" => request.filters(filter("is-default", "true")),
            vpc => request.filters(filter("vpc-id", vpc)),
        };
        let response = request.send().await.call_context("ec2:DescribeVpcs", "the network")?;
        let vpc = response.vpcs().iter().find_map(|vpc| vpc.vpc_id()).map(String::from);
        vpc.ok_or_else(|| match configured.as_str() {
            "" => Error::failed(format!(
                "the default VPC does not exist in {}",
                self.account.config.aws.region
            ))
            .hint(
                "create a default VPC with `aws ec2 create-default-vpc`, or set a VPC and subnets \
                 in `[network]`",
            ),
            vpc => Error::failed(format!(
                "VPC `{vpc}` does not exist in {}",
                self.account.config.aws.region
            ))
            .hint("correct `network.vpc`"),
        })
    }

    /// Selects subnets in two or three distinct zones, over which the brokers can be spread evenly.
    async fn subnets(&self, vpc: &str) -> Result<Vec<String>> {
        let config = &self.account.config;
        let request = self.account.ec2.describe_subnets().filters(filter("vpc-id", vpc));
        let response = request.send().await.call_context("ec2:DescribeSubnets", "the network")?;
        let mut all: Vec<(&str, &str)> = response
            .subnets()
            .iter()
            .filter_map(|subnet| Some((subnet.availability_zone()?, subnet.subnet_id()?)))
            .collect();
        all.sort_unstable();
        let named = &config.network.subnets;
        if let Some(missing) =
            named.iter().find(|name| !all.iter().any(|(_, subnet)| subnet == name))
        {
            return Err(Error::failed(format!("subnet `{missing}` does not exist in `{vpc}`"))
                .hint("correct `network.subnets`"));
        }
        let mut zones = BTreeSet::new();
        let usable = all
            .iter()
            .filter(|(_, subnet)| named.is_empty() || named.iter().any(|name| name == subnet));
        let mut subnets: Vec<String> = usable
            .filter(|(zone, _)| zones.insert(*zone))
            .map(|(_, subnet)| subnet.to_string())
            .collect();
        if !named.is_empty() && subnets.len() < named.len() {
            return Err(Error::failed("two of `network.subnets` are in the same zone")
                .hint("choose subnets in distinct zones: the brokers are spread over them"));
        }
        let (brokers, available) = (config.cluster.brokers, subnets.len());
        let is_even = |zones: &usize| (brokers as usize).is_multiple_of(*zones);
        if named.is_empty()
            && let Some(zones) = ZONES.rev().filter(|zones| *zones <= available).find(is_even)
        {
            // The largest number of zones that divides the number of brokers.
            subnets.truncate(zones);
        }
        if !ZONES.contains(&subnets.len()) || !is_even(&subnets.len()) {
            return Err(Error::failed(format!(
                "cannot spread {brokers} brokers evenly over {} subnets",
                subnets.len()
            ))
            .hint(
                "choose two or three subnets in distinct zones, as MSK requires, and set \
                 `cluster.brokers` to a multiple of their number",
            ));
        }
        Ok(subnets)
    }
}

#[async_trait(?Send)]
impl Resource for Network {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "network"
    }

    fn name(&self) -> String {
        if self.account.config.network.vpc.is_empty() {
            "default VPC".into()
        } else {
            self.account.config.network.vpc.clone()
        }
    }

    fn is_removable(&self) -> bool {
        false
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let vpc = self.vpc().await?;
        let subnets = self.subnets(&vpc).await?;
        observed
            .found(self.name())
            .set(&outputs::VPC, vpc.as_str())
            .set(&outputs::SUBNETS, subnets.clone());
        // An existing resource: pinpipe never changes it.
        Ok(Observation::existing(format!("{vpc}, {} subnets in distinct zones", subnets.len())))
    }

    async fn create(&self) -> Result<()> {
        Ok(())
    }

    async fn update(&self) -> Result<()> {
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        Ok(false)
    }
}

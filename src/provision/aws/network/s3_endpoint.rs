//! The gateway endpoint from the VPC to S3. Workers of MSK Connect have no public address and
//! cannot reach S3 without it: their requests time out. A gateway endpoint is free of charge.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Filter, ResourceType, RouteTable, VpcEndpoint, VpcEndpointType};

use crate::base::error::{Error, Result};
use crate::clients::aws::call::{CallContext, CreateError};
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::{filter, tag_filters};
use crate::provision::aws::ec2_tags::{pairs, put_tags, tag_specification};
use crate::provision::aws::keys;
use crate::provision::aws::outputs;
use crate::provision::resource::{Difference, Observation, Ownership, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::S3_ENDPOINT;

pub struct S3Endpoint {
    pub account: Rc<Account>,
}

impl S3Endpoint {
    fn service(&self) -> String {
        format!("com.amazonaws.{}.s3", self.account.config.aws.region)
    }

    /// Finds the S3 endpoint of the VPC, managed by pinpipe or not.
    async fn find(&self) -> Result<Option<VpcEndpoint>> {
        let Some(vpc) = self.account.state.output(&outputs::VPC).await else {
            return Ok(None);
        };
        let endpoints = self
            .describe(vec![filter("vpc-id", vpc), filter("service-name", self.service())])
            .await?;
        Ok(endpoints
            .into_iter()
            .min_by_key(|endpoint| endpoint.vpc_endpoint_id().map(String::from)))
    }

    /// Finds this pipeline's endpoints in other VPCs, which an earlier configuration may have used.
    async fn in_other_vpcs(&self) -> Result<Vec<VpcEndpoint>> {
        let vpc = self.account.state.output(&outputs::VPC).await;
        Ok(self
            .describe(tag_filters(&self.account, KEY))
            .await?
            .into_iter()
            .filter(|endpoint| endpoint.vpc_id != vpc)
            .collect())
    }

    /// Describes the usable gateway endpoints that match the filters.
    async fn describe(&self, filters: Vec<Filter>) -> Result<Vec<VpcEndpoint>> {
        let response = self
            .account
            .ec2
            .describe_vpc_endpoints()
            .set_filters(Some(filters))
            .send()
            .await
            .call_context("ec2:DescribeVpcEndpoints", "the S3 endpoint")?;
        let is_usable = |endpoint: &VpcEndpoint| {
            let state =
                endpoint.state().map(|state| state.as_str().to_lowercase()).unwrap_or_default();
            endpoint.vpc_endpoint_type() == Some(&VpcEndpointType::Gateway)
                && !matches!(state.as_str(), "deleted" | "deleting")
        };
        Ok(response.vpc_endpoints.unwrap_or_default().into_iter().filter(is_usable).collect())
    }

    async fn remove(&self, endpoints: Vec<VpcEndpoint>) -> Result<()> {
        let ids: Vec<String> =
            endpoints.into_iter().filter_map(|endpoint| endpoint.vpc_endpoint_id).collect();
        let names = format!("`{}`", ids.join("`, `"));
        let response = self
            .account
            .ec2
            .delete_vpc_endpoints()
            .set_vpc_endpoint_ids(Some(ids))
            .send()
            .await
            .call_context("ec2:DeleteVpcEndpoints", &names)?;
        match response.unsuccessful().iter().find_map(|item| item.error()) {
            Some(error) if error.code() != Some("InvalidVpcEndpoint.NotFound") => {
                Err(Error::failed(format!("cannot delete the S3 endpoint {names}"))
                    .with_source(error.message().unwrap_or_default().to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Ids of the subnets' route tables. A subnet without a route table of its own uses the main
    /// route table of the VPC.
    async fn route_tables(&self) -> Result<Vec<String>> {
        let vpc = self.account.state.require_output(&outputs::VPC).await?;
        let request = self.account.ec2.describe_route_tables().filters(filter("vpc-id", vpc));
        let response =
            request.send().await.call_context("ec2:DescribeRouteTables", "the network")?;
        let subnets = self.account.state.require_output(&outputs::SUBNETS).await?;
        let associated = |matches: &dyn Fn(&aws_sdk_ec2::types::RouteTableAssociation) -> bool| {
            let tables = response
                .route_tables()
                .iter()
                .filter(|table: &&RouteTable| table.associations().iter().any(matches));
            tables.filter_map(|table| table.route_table_id().map(String::from)).collect::<Vec<_>>()
        };
        let explicit =
            |subnet: &String| associated(&|association| association.subnet_id() == Some(subnet));
        let mut tables: Vec<String> = subnets.iter().flat_map(explicit).collect();
        if subnets.iter().any(|subnet| explicit(subnet).is_empty()) {
            tables.extend(associated(&|association| association.main() == Some(true)));
        }
        tables.sort_unstable();
        tables.dedup();
        Ok(tables)
    }

    /// Ids of the subnets' route tables that do not use the endpoint.
    async fn missing_tables(&self, endpoint: &VpcEndpoint) -> Result<Vec<String>> {
        Ok(self
            .route_tables()
            .await?
            .into_iter()
            .filter(|table| !endpoint.route_table_ids().contains(table))
            .collect())
    }
}

#[async_trait(?Send)]
impl Resource for S3Endpoint {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "s3-endpoint"
    }

    fn name(&self) -> String {
        self.service()
    }

    fn depends_on(&self) -> Vec<String> {
        vec![keys::NETWORK.into()]
    }

    async fn observe(&self, _observed: &mut ObservedOutputs) -> Result<Observation> {
        let (found, in_other_vpcs) = (self.find().await?, self.in_other_vpcs().await?);
        let is_managed =
            found.as_ref().is_some_and(|endpoint| self.account.is_managed(pairs(endpoint.tags())));
        if let Some(endpoint) = in_other_vpcs.first().filter(|_| !is_managed) {
            return Ok(Observation::not_updatable(vec![format!(
                "the endpoint is in another VPC, {}",
                endpoint.vpc_id().unwrap_or_default()
            )]));
        }
        let Some(endpoint) = found else {
            return Ok(Observation::missing());
        };
        let id = endpoint.vpc_endpoint_id().unwrap_or_default();
        let missing = self.missing_tables(&endpoint).await?;
        if !is_managed && missing.is_empty() {
            return Ok(Observation::existing(format!("{id}, not managed by pinpipe")));
        }
        let mut differences: Vec<Difference> = missing
            .iter()
            .map(|table| format!("route table `{table}` does not use the endpoint").into())
            .collect();
        if !is_managed {
            // Not all subnets use the unmanaged endpoint. A route table can use only one S3
            // endpoint, so the route tables are added to the existing endpoint.
            return Ok(Observation {
                ownership: Ownership::Existing,
                ..Observation::compared(differences, id)
            });
        }
        differences.extend(in_other_vpcs.iter().map(|endpoint| {
            format!(
                "another endpoint of this pipeline is in {}",
                endpoint.vpc_id().unwrap_or_default()
            )
            .into()
        }));
        differences.extend(self.account.tag_differences(KEY, pairs(endpoint.tags())));
        Ok(Observation::compared(differences, id))
    }

    async fn create(&self) -> Result<()> {
        let vpc = self.account.state.require_output(&outputs::VPC).await?;
        let tables = self.route_tables().await?;
        let token = self.account.state.mark_creating(KEY, &self.name()).await?;
        let create = || async {
            let tags = tag_specification(&self.account, KEY, ResourceType::VpcEndpoint);
            let request = self
                .account
                .ec2_once
                .create_vpc_endpoint()
                .vpc_id(&vpc)
                .service_name(self.service())
                .client_token(&token);
            let request = request
                .vpc_endpoint_type(VpcEndpointType::Gateway)
                .set_route_table_ids(Some(tables.clone()))
                .tag_specifications(tags);
            let response = request.send().await.map_err(|error| {
                CreateError::new("ec2:CreateVpcEndpoint", "the S3 endpoint", error)
            })?;
            Ok(response.vpc_endpoint().cloned())
        };
        let find = || async { self.find().await.map(|found| found.map(Some)) };
        self.account.create_idempotently(find, create).await.map(|_| ())
    }

    async fn update(&self) -> Result<()> {
        let Some(endpoint) = self.find().await? else {
            return Ok(());
        };
        let id = endpoint.vpc_endpoint_id().unwrap_or_default();
        let missing = self.missing_tables(&endpoint).await?;
        if !missing.is_empty() {
            let request = self
                .account
                .ec2
                .modify_vpc_endpoint()
                .vpc_endpoint_id(id)
                .set_add_route_table_ids(Some(missing));
            request.send().await.call_context("ec2:ModifyVpcEndpoint", &format!("`{id}`"))?;
        }
        if self.account.is_managed(pairs(endpoint.tags()))
            && !self.account.tag_differences(KEY, pairs(endpoint.tags())).is_empty()
        {
            put_tags(&self.account, KEY, id).await?;
        }
        let in_other_vpcs = self.in_other_vpcs().await?;
        if in_other_vpcs.is_empty() { Ok(()) } else { self.remove(in_other_vpcs).await }
    }

    async fn delete(&self) -> Result<bool> {
        let mut managed = self.in_other_vpcs().await?;
        managed.extend(
            self.find().await?.filter(|endpoint| self.account.is_managed(pairs(endpoint.tags()))),
        );
        if managed.is_empty() {
            return Ok(false);
        }
        self.remove(managed).await?;
        Ok(true)
    }
}

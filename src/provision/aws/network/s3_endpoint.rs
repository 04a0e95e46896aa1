//! The way from the VPC to S3: workers of MSK Connect have no public address, and without
//! this endpoint they wait for S3 until they fail. It costs nothing.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Filter, ResourceType, RouteTable, VpcEndpoint, VpcEndpointType};

use crate::base::error::{Error, Result};
use crate::clients::aws::call::{Call, CreateError, failed};
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::{filter, tag_filters};
use crate::provision::aws::ec2_tags::{pairs, put_tags, tag_specification};
use crate::provision::aws::keys;
use crate::provision::aws::outputs;
use crate::provision::resource::{Observation, Ownership, Resource};

const KEY: &str = keys::S3_ENDPOINT;

pub struct S3Endpoint {
    pub account: Rc<Account>,
}

impl S3Endpoint {
    fn service(&self) -> String {
        format!("com.amazonaws.{}.s3", self.account.config.aws.region)
    }

    /// The one of the VPC, whosever it is.
    async fn find(&self) -> Result<Option<VpcEndpoint>> {
        let Some(vpc) = self.account.state.output(keys::NETWORK, "vpc").await else {
            return Ok(None);
        };
        let found = self
            .described(vec![
                filter("vpc-id", vpc),
                filter("service-name", self.service()),
            ])
            .await?;
        Ok(found
            .into_iter()
            .min_by_key(|endpoint| endpoint.vpc_endpoint_id().map(String::from)))
    }

    /// Ours in other VPCs: the configuration may have named another one since.
    async fn elsewhere(&self) -> Result<Vec<VpcEndpoint>> {
        let vpc = self.account.state.output(keys::NETWORK, "vpc").await;
        Ok(self
            .described(tag_filters(&self.account, KEY))
            .await?
            .into_iter()
            .filter(|endpoint| endpoint.vpc_id != vpc)
            .collect())
    }

    async fn described(&self, filters: Vec<Filter>) -> Result<Vec<VpcEndpoint>> {
        let found = self
            .account
            .ec2
            .describe_vpc_endpoints()
            .set_filters(Some(filters))
            .send()
            .await;
        let found = found
            .map_err(|error| failed(Call("ec2:DescribeVpcEndpoints", "the S3 endpoint"), &error))?;
        let usable = |endpoint: &VpcEndpoint| {
            let state = endpoint
                .state()
                .map(|state| state.as_str().to_lowercase())
                .unwrap_or_default();
            endpoint.vpc_endpoint_type() == Some(&VpcEndpointType::Gateway)
                && !matches!(state.as_str(), "deleted" | "deleting")
        };
        Ok(found
            .vpc_endpoints
            .unwrap_or_default()
            .into_iter()
            .filter(usable)
            .collect())
    }

    async fn remove(&self, endpoints: Vec<VpcEndpoint>) -> Result<()> {
        let ids: Vec<String> = endpoints
            .into_iter()
            .filter_map(|endpoint| endpoint.vpc_endpoint_id)
            .collect();
        let what = format!("`{}`", ids.join("`, `"));
        let removed = self
            .account
            .ec2
            .delete_vpc_endpoints()
            .set_vpc_endpoint_ids(Some(ids))
            .send()
            .await;
        let removed =
            removed.map_err(|error| failed(Call("ec2:DeleteVpcEndpoints", &what), &error))?;
        match removed.unsuccessful().iter().find_map(|item| item.error()) {
            Some(error) if error.code() != Some("InvalidVpcEndpoint.NotFound") => Err(
                Error::failed(format!("the S3 endpoint {what} cannot be removed"))
                    .with_source(error.message().unwrap_or_default().to_string()),
            ),
            _ => Ok(()),
        }
    }

    /// Tables that the subnets' traffic goes by: their own, or the VPC's main one.
    async fn route_tables(&self) -> Result<Vec<String>> {
        let vpc = self
            .account
            .state
            .require_output(keys::NETWORK, "vpc")
            .await?;
        let request = self
            .account
            .ec2
            .describe_route_tables()
            .filters(filter("vpc-id", vpc));
        let found = request
            .send()
            .await
            .map_err(|error| failed(Call("ec2:DescribeRouteTables", "the network"), &error))?;
        let subnets = outputs::subnets(&self.account).await?;
        let of = |is: &dyn Fn(&aws_sdk_ec2::types::RouteTableAssociation) -> bool| {
            let tables = found
                .route_tables()
                .iter()
                .filter(|table: &&RouteTable| table.associations().iter().any(is));
            tables
                .filter_map(|table| table.route_table_id().map(String::from))
                .collect::<Vec<_>>()
        };
        let explicit = |subnet: &String| of(&|association| association.subnet_id() == Some(subnet));
        let mut tables: Vec<String> = subnets.iter().flat_map(explicit).collect();
        if subnets.iter().any(|subnet| explicit(subnet).is_empty()) {
            tables.extend(of(&|association| association.main() == Some(true)));
        }
        tables.sort_unstable();
        tables.dedup();
        Ok(tables)
    }

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

    async fn read(&self) -> Result<Observation> {
        let (found, elsewhere) = (self.find().await?, self.elsewhere().await?);
        let is_here = found
            .as_ref()
            .is_some_and(|endpoint| self.account.is_ours(pairs(endpoint.tags())));
        if let Some(endpoint) = elsewhere.first().filter(|_| !is_here) {
            return Ok(Observation::replace(vec![format!(
                "it is in another VPC, {}",
                endpoint.vpc_id().unwrap_or_default()
            )]));
        }
        let Some(endpoint) = found else {
            return Ok(Observation::missing());
        };
        let id = endpoint.vpc_endpoint_id().unwrap_or_default();
        let missing = self.missing_tables(&endpoint).await?;
        if !is_here && missing.is_empty() {
            return Ok(Observation::existing(format!(
                "{id}, which was there already"
            )));
        }
        let mut differences: Vec<String> = missing
            .iter()
            .map(|table| format!("route table `{table}` does not use it"))
            .collect();
        if !is_here {
            // Somebody else's endpoint that does not serve our subnets: S3 allows only one a table, so it is extended.
            return Ok(Observation {
                ownership: Ownership::Existing,
                ..Observation::from_drift(differences, id)
            });
        }
        differences.extend(elsewhere.iter().map(|endpoint| {
            format!(
                "another of ours is in {}",
                endpoint.vpc_id().unwrap_or_default()
            )
        }));
        differences.extend(self.account.tag_differences(KEY, pairs(endpoint.tags())));
        Ok(Observation::from_drift(differences, id))
    }

    async fn create(&self) -> Result<()> {
        let vpc = self
            .account
            .state
            .require_output(keys::NETWORK, "vpc")
            .await?;
        let tables = self.route_tables().await?;
        let token = self.account.state.mark_creating(KEY, &self.name()).await?;
        let make = || async {
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
            let made = request.send().await.map_err(|error| {
                CreateError::new(Call("ec2:CreateVpcEndpoint", "the S3 endpoint"), &error)
            })?;
            Ok(made.vpc_endpoint().cloned())
        };
        let find = || async { self.find().await.map(|found| found.map(Some)) };
        self.account
            .create_idempotently(find, make)
            .await
            .map(|_| ())
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
            request.send().await.map_err(|error| {
                failed(Call("ec2:ModifyVpcEndpoint", &format!("`{id}`")), &error)
            })?;
        }
        if self.account.is_ours(pairs(endpoint.tags()))
            && !self
                .account
                .tag_differences(KEY, pairs(endpoint.tags()))
                .is_empty()
        {
            put_tags(&self.account, KEY, id).await?;
        }
        let elsewhere = self.elsewhere().await?;
        if elsewhere.is_empty() {
            Ok(())
        } else {
            self.remove(elsewhere).await
        }
    }

    async fn delete(&self) -> Result<bool> {
        let mut ours = self.elsewhere().await?;
        ours.extend(
            self.find()
                .await?
                .filter(|endpoint| self.account.is_ours(pairs(endpoint.tags()))),
        );
        if ours.is_empty() {
            return Ok(false);
        }
        self.remove(ours).await?;
        Ok(true)
    }
}

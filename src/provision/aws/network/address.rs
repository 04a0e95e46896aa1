//! The Elastic IP of the client machine, so that the API's integration stays valid when the
//! machine is replaced.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{Address as ElasticIp, DomainType, ResourceType};

use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, CreateError, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::tag_filters;
use crate::provision::aws::ec2_tags::{pairs, put_tags, tag_specification};
use crate::provision::aws::keys;
use crate::provision::aws::outputs;
use crate::provision::cost::CostItem;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::ADDRESS;

pub struct Address {
    pub account: Rc<Account>,
}

impl Address {
    const DISPLAY_NAME: &'static str = "the Elastic IP";

    async fn find_all(&self) -> Result<Vec<ElasticIp>> {
        let request = self
            .account
            .ec2
            .describe_addresses()
            .set_filters(Some(tag_filters(&self.account, KEY)));
        let response =
            request.send().await.call_context("ec2:DescribeAddresses", Self::DISPLAY_NAME)?;
        let mut all = response.addresses().to_vec();
        // An address that lost its tags is found by its id in the state. Otherwise, a second
        // address would be allocated and billed.
        if all.is_empty()
            && let Some(id) = self.account.state.output(&outputs::ADDRESS_ID).await
        {
            match self.account.ec2.describe_addresses().allocation_ids(id).send().await {
                Ok(response) => all.extend(response.addresses().iter().cloned()),
                Err(error) if code(&error) == "InvalidAllocationID.NotFound" => {}
                Err(error) => {
                    return Err(error.call_context("ec2:DescribeAddresses", Self::DISPLAY_NAME));
                }
            }
        }
        all.sort_by_key(|address| address.allocation_id().map(String::from));
        Ok(all)
    }

    /// Returns the associated address, or the first if interrupted runs allocated several.
    async fn find(&self) -> Result<Option<ElasticIp>> {
        let all = self.find_all().await?;
        Ok(all.iter().find(|address| address.association_id().is_some()).or(all.first()).cloned())
    }
}

#[async_trait(?Send)]
impl Resource for Address {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "address"
    }

    fn name(&self) -> String {
        self.account.named("address")
    }

    fn depends_on(&self) -> Vec<String> {
        vec![keys::CLIENT.into()]
    }

    fn cost_items(&self) -> Vec<CostItem> {
        vec![CostItem::new("public-ipv4", 1)]
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(address) = self.find().await? else {
            return Ok(Observation::missing());
        };
        observed
            .found(self.name())
            .set(&outputs::ADDRESS_ID, address.allocation_id().unwrap_or_default())
            .set(&outputs::ADDRESS_IP, address.public_ip().unwrap_or_default());
        let mut differences = self.account.tag_differences(KEY, pairs(address.tags()));
        let instance = self.account.state.output(&outputs::CLIENT_ID).await;
        if instance.is_none() || address.instance_id() != instance.as_deref() {
            differences.push("the address is not associated with the client machine".into());
        }
        Ok(Observation::compared(differences, address.public_ip().unwrap_or_default()))
    }

    async fn create(&self) -> Result<()> {
        let allocate = || async {
            let tags = tag_specification(&self.account, KEY, ResourceType::ElasticIp);
            let response = self
                .account
                .ec2_once
                .allocate_address()
                .domain(DomainType::Vpc)
                .tag_specifications(tags)
                .send()
                .await;
            let allocated = response.map_err(|error| {
                CreateError::new("ec2:AllocateAddress", Self::DISPLAY_NAME, error)
            })?;
            Ok(ElasticIp::builder()
                .set_allocation_id(allocated.allocation_id)
                .set_public_ip(allocated.public_ip)
                .build())
        };
        let address = self.account.create_idempotently(|| self.find(), allocate).await?;
        let id = address.allocation_id().unwrap_or_default();
        self.account.state.record(&self.name(), &outputs::ADDRESS_ID, id).await
    }

    async fn update(&self) -> Result<()> {
        let Some(address) = self.find().await? else {
            return Ok(());
        };
        let id = address.allocation_id().unwrap_or_default();
        let instance = self.account.state.require_output(&outputs::CLIENT_ID).await?;
        if address.instance_id() != Some(instance.as_str()) {
            let request = self
                .account
                .ec2
                .associate_address()
                .allocation_id(id)
                .instance_id(instance)
                .allow_reassociation(true);
            request.send().await.call_context("ec2:AssociateAddress", Self::DISPLAY_NAME)?;
        }
        if !self.account.tag_differences(KEY, pairs(address.tags())).is_empty() {
            put_tags(&self.account, KEY, id).await?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let all = self.find_all().await?;
        for address in &all {
            if let Some(association) = address.association_id() {
                match self
                    .account
                    .ec2
                    .disassociate_address()
                    .association_id(association)
                    .send()
                    .await
                {
                    Err(error) if code(&error) != "InvalidAssociationID.NotFound" => {
                        return Err(
                            error.call_context("ec2:DisassociateAddress", Self::DISPLAY_NAME)
                        );
                    }
                    _ => {}
                }
            }
            match self
                .account
                .ec2
                .release_address()
                .set_allocation_id(address.allocation_id.clone())
                .send()
                .await
            {
                Err(error) if !matches!(code(&error), "InvalidAllocationID.NotFound") => {
                    return Err(error.call_context("ec2:ReleaseAddress", Self::DISPLAY_NAME));
                }
                _ => {}
            }
        }
        Ok(!all.is_empty())
    }
}

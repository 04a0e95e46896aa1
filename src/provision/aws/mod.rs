//! The resources of a pipeline on AWS: one module for each service, one file for each resource.

pub mod airflow;
pub mod apigateway;
pub mod connect;
pub mod context;
pub mod databricks;
pub mod ec2;
pub mod ec2_tags;
pub mod iam;
pub mod keys;
pub mod kinesis;
pub mod listing;
pub mod msk;
pub mod names;
pub mod network;
pub mod object_keys;
pub mod outputs;
pub mod parameter;
pub mod placeholders;
pub mod proxy_secret;
pub mod run_command;
pub mod s3;
pub mod tags;
pub mod templates;

use std::rc::Rc;

use crate::base::model::Kind;
use crate::provision::aws::context::Account;
use crate::provision::aws::names::{BucketUse, GroupMember, Principal};
use crate::provision::resource::Resource;

/// Returns every resource of a pipeline on AWS, including resources that the configuration
/// disables.
pub fn all(account: &Rc<Account>) -> Vec<Box<dyn Resource>> {
    let shared = || account.clone();
    let mut all: Vec<Box<dyn Resource>> =
        vec![Box::new(network::vpc::Network { account: shared() })];
    for member in [GroupMember::Client, GroupMember::Cluster, GroupMember::Airflow] {
        all.push(Box::new(network::security_group::Group { member, account: shared() }));
    }
    all.push(Box::new(network::s3_endpoint::S3Endpoint { account: shared() }));
    for principal in Principal::ALL {
        all.push(Box::new(iam::role::Role { principal, account: shared() }));
    }
    all.push(Box::new(iam::instance_profile::InstanceProfile { account: shared() }));
    all.push(Box::new(ec2::key_pair::KeyPair { account: shared() }));
    all.push(Box::new(proxy_secret::ProxySecret { account: shared() }));
    all.push(Box::new(s3::Bucket { purpose: BucketUse::Lake, account: shared() }));
    all.push(Box::new(connect::plugin_object::PluginObject { account: shared() }));
    all.push(Box::new(msk::cluster::Cluster { account: shared() }));
    all.push(Box::new(ec2::client_machine::Client { account: shared() }));
    all.push(Box::new(network::address::Address { account: shared() }));
    for kind in Kind::ALL {
        all.push(Box::new(msk::topic::Topic { kind, account: shared() }));
    }
    all.push(Box::new(connect::plugin::Plugin { account: shared() }));
    all.push(Box::new(connect::worker_configuration::WorkerConfiguration { account: shared() }));
    all.push(Box::new(connect::connector::Connector { account: shared() }));
    for kind in Kind::ALL {
        all.push(Box::new(kinesis::Stream { kind, account: shared() }));
    }
    all.push(Box::new(apigateway::api::Api { account: shared() }));
    all.push(Box::new(apigateway::api_key::ApiKey { account: shared() }));
    all.push(Box::new(apigateway::usage_plan::UsagePlan { account: shared() }));
    all.push(Box::new(s3::Bucket { purpose: BucketUse::Airflow, account: shared() }));
    all.push(Box::new(airflow::requirements::Requirements { account: shared() }));
    all.push(Box::new(airflow::environment::Airflow { account: shared() }));
    all.push(Box::new(databricks::DatabricksJob { account: shared() }));
    all.push(Box::new(airflow::dag::Dag { account: shared() }));
    all.push(Box::new(airflow::connection::AirflowConnection { account: shared() }));
    all
}

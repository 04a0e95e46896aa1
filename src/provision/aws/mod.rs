//! The resources of a pipeline on AWS: one room per service, one file per resource.

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
use crate::provision::aws::names::{BucketUse, Holder, Member};
use crate::provision::resource::Resource;

/// Every resource of a pipeline on AWS, those that the configuration does not ask for too.
pub fn all(account: &Rc<Account>) -> Vec<Box<dyn Resource>> {
    let own = || account.clone();
    let mut all: Vec<Box<dyn Resource>> = vec![Box::new(network::vpc::Network { account: own() })];
    for member in [Member::Client, Member::Cluster, Member::Airflow] {
        all.push(Box::new(network::security_group::Group {
            member,
            account: own(),
        }));
    }
    all.push(Box::new(network::s3_endpoint::S3Endpoint {
        account: own(),
    }));
    for holder in Holder::ALL {
        all.push(Box::new(iam::role::Role {
            holder,
            account: own(),
        }));
    }
    all.push(Box::new(iam::instance_profile::InstanceProfile {
        account: own(),
    }));
    all.push(Box::new(ec2::key_pair::KeyPair { account: own() }));
    all.push(Box::new(proxy_secret::ProxySecret { account: own() }));
    all.push(Box::new(s3::Bucket {
        purpose: BucketUse::Lake,
        account: own(),
    }));
    all.push(Box::new(connect::plugin_object::PluginObject {
        account: own(),
    }));
    all.push(Box::new(msk::cluster::Cluster { account: own() }));
    all.push(Box::new(ec2::client_machine::Client { account: own() }));
    all.push(Box::new(network::address::Address { account: own() }));
    for kind in Kind::ALL {
        all.push(Box::new(msk::topic::Topic {
            kind,
            account: own(),
        }));
    }
    all.push(Box::new(connect::plugin::Plugin { account: own() }));
    all.push(Box::new(
        connect::worker_configuration::WorkerConfiguration { account: own() },
    ));
    all.push(Box::new(connect::connector::Connector { account: own() }));
    for kind in Kind::ALL {
        all.push(Box::new(kinesis::Stream {
            kind,
            account: own(),
        }));
    }
    all.push(Box::new(apigateway::api::Api { account: own() }));
    all.push(Box::new(apigateway::api_key::ApiKey { account: own() }));
    all.push(Box::new(apigateway::usage_plan::UsagePlan {
        account: own(),
    }));
    all.push(Box::new(s3::Bucket {
        purpose: BucketUse::Airflow,
        account: own(),
    }));
    all.push(Box::new(airflow::requirements::Requirements {
        account: own(),
    }));
    all.push(Box::new(airflow::environment::Airflow { account: own() }));
    all.push(Box::new(databricks::DatabricksJob { account: own() }));
    all.push(Box::new(airflow::dag::Dag { account: own() }));
    all.push(Box::new(airflow::connection::AirflowConnection {
        account: own(),
    }));
    all
}

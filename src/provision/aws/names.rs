//! Names of resources, which are known before creation. Modules use them to refer to resources of
//! other modules.

use crate::base::config::schema::Config;
use crate::provision::aws::context::Account;

/// Port of the Kafka REST proxy.
pub const PROXY_PORT: i32 = 8082;

/// Members of a security group: the client machine, the brokers or Airflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupMember {
    Client,
    Cluster,
    Airflow,
}

impl GroupMember {
    pub fn key(self) -> &'static str {
        match self {
            Self::Client => "group-client",
            Self::Cluster => "group-cluster",
            Self::Airflow => "group-airflow",
        }
    }
}

/// Purpose of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketUse {
    Lake,
    Airflow,
}

impl BucketUse {
    pub fn key(self) -> &'static str {
        match self {
            Self::Lake => "bucket",
            Self::Airflow => "bucket-airflow",
        }
    }

    pub fn name(self, config: &Config) -> String {
        match self {
            Self::Lake => config.bucket(),
            Self::Airflow if config.airflow.bucket.is_empty() => {
                format!("user-{}-airflow", config.id)
            }
            Self::Airflow => config.airflow.bucket.clone(),
        }
    }
}

/// Service or machine that assumes a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal {
    /// The client machine.
    Client,
    /// MSK Connect.
    Connector,
    /// API Gateway, for calls to Kinesis.
    Kinesis,
    /// Managed Airflow.
    Airflow,
}

impl Principal {
    pub const ALL: [Principal; 4] = [Self::Client, Self::Connector, Self::Kinesis, Self::Airflow];

    pub fn key(self) -> &'static str {
        match self {
            Self::Client => "role-client",
            Self::Connector => "role-connector",
            Self::Kinesis => "role-kinesis",
            Self::Airflow => "role-airflow",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Client => "ec2-access-role",
            Self::Connector => "connector-role",
            Self::Kinesis => "kinesis-access-role",
            Self::Airflow => "airflow-role",
        }
    }
}

/// Name of a role, known before creation.
pub fn role_name(account: &Account, principal: Principal) -> String {
    account.named(principal.suffix())
}

/// ARN of a role, known before creation.
pub fn role_arn(account: &Account, principal: Principal) -> String {
    format!("arn:{}:iam::{}:role/{}", account.partition, account.id, role_name(account, principal))
}

/// Name of the instance profile: the name of its role, as in the AWS console.
pub fn profile_name(account: &Account) -> String {
    role_name(account, Principal::Client)
}

/// Name of the cluster: `cluster.name`, by default `<id>-cluster`.
pub fn cluster_name(config: &Config) -> String {
    if config.cluster.name.is_empty() {
        format!("{}-cluster", config.id)
    } else {
        config.cluster.name.clone()
    }
}

/// Name of the SSM parameter that stores the REST proxy's password.
pub fn proxy_secret_name(config: &Config) -> String {
    format!("/pinpipe/{}/proxy-password", config.id)
}

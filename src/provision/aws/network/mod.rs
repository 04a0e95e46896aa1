//! The network: VPC, security groups, S3 endpoint and Elastic IP.

pub mod address;
pub mod ip_ranges;
pub mod s3_endpoint;
pub mod security_group;
pub mod vpc;

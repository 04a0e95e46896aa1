//! Amazon MSK: cluster and topics.

pub mod cluster;
pub mod topic;
pub mod topic_backend;
pub mod topic_service;

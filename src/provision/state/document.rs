//! The stored form of the state, with a format version.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Phase of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The create call may have been sent.
    Creating,
    Ready,
    /// The delete call may have been sent.
    Deleting,
}

/// Entry of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub phase: Phase,
    /// Idempotency token of the create call.
    pub token: String,
    pub begun_at: DateTime<Utc>,
    /// ARNs, ids and addresses.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

/// The stored state of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDocument {
    /// Format version of this document.
    pub version: u32,
    pub id: String,
    pub account: String,
    pub region: String,
    pub resources: BTreeMap<String, Entry>,
    /// The whole pipeline was applied at least once, so the state has an entry for every resource
    /// that exists.
    #[serde(default)]
    pub is_whole: bool,
}

/// Format version that this program writes.
pub const VERSION: u32 = 1;

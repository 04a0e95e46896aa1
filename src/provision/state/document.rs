//! The state as it is stored, by a format version.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// How far a resource has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The call that makes it may have been sent.
    Creating,
    Ready,
    /// The call that removes it may have been sent.
    Deleting,
}

/// What is remembered of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub phase: Phase,
    /// Sent with calls that take one, so that AWS knows a repeated call.
    pub token: String,
    pub begun_at: DateTime<Utc>,
    /// ARNs, ids and addresses.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

/// The whole of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDocument {
    /// Layout of this document.
    pub version: u32,
    pub id: String,
    pub account: String,
    pub region: String,
    pub resources: BTreeMap<String, Entry>,
    /// All of the pipeline has been brought to how it should be once: what is not remembered is not there.
    #[serde(default)]
    pub is_whole: bool,
}

/// Layout that this program writes.
pub const VERSION: u32 = 1;

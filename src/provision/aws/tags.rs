//! Tags that services return as a map.

use std::collections::HashMap;

/// Keys and values of tags as pairs, for comparisons.
pub fn pairs(tags: &HashMap<String, String>) -> impl Iterator<Item = (&str, &str)> + Clone {
    tags.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

//! `--only` and `--skip`: the resources that a command reads or changes.

use std::collections::BTreeSet;

use crate::base::error::{Error, Result};
use crate::provision::engine::graph::Graph;

/// Selection of resources by key or type.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Keys or types of the selected resources; all if empty.
    pub only: Vec<String>,
    /// Keys or types of the excluded resources.
    pub skip: Vec<String>,
}

impl Selection {
    /// Selects exactly the resources with these keys.
    pub fn of(keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { only: keys.into_iter().map(Into::into).collect(), skip: Vec::new() }
    }

    /// Keys of the selected resources.
    ///
    /// # Errors
    /// A name is neither the key nor the type of a resource.
    pub fn keys(&self, graph: &Graph) -> Result<BTreeSet<String>> {
        for name in self.only.iter().chain(&self.skip) {
            let is_known = graph
                .resources()
                .any(|resource| resource.key() == *name || resource.kind() == name);
            if !is_known {
                return Err(unknown(name, graph));
            }
        }
        let is_named = |names: &[String], key: &str, kind: &str| {
            names.iter().any(|name| name == key || name == kind)
        };
        let selected = graph.resources().filter_map(|resource| {
            let (key, kind) = (resource.key(), resource.kind());
            let is_selected = (self.only.is_empty() || is_named(&self.only, &key, kind))
                && !is_named(&self.skip, &key, kind);
            is_selected.then_some(key)
        });
        Ok(selected.collect())
    }
}

fn unknown(name: &str, graph: &Graph) -> Error {
    let mut names: Vec<String> = graph
        .resources()
        .flat_map(|resource| [resource.key(), resource.kind().to_string()])
        .collect();
    names.sort_unstable();
    names.dedup();
    let nearest = names
        .iter()
        .min_by_key(|known| strsim::damerau_levenshtein(known, name))
        .cloned()
        .unwrap_or_default();
    Error::usage(format!("resource `{name}` does not exist, did you mean `{nearest}`?"))
        .hint(format!("resources and types: {}", names.join(", ")))
}

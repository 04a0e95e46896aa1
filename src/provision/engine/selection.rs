//! `--only` and `--skip`: which resources a run changes.

use crate::base::error::{Error, Result};
use crate::provision::engine::graph::Graph;

/// Which resources a command works on.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these resources, by key or type (repeat, or separate by commas)
    pub only: Vec<String>,
    /// All but these resources
    pub skip: Vec<String>,
}

impl Selection {
    /// For each resource whether it is chosen.
    ///
    /// # Errors
    /// A name that no resource has.
    pub fn chosen(&self, graph: &Graph) -> Result<Vec<bool>> {
        for name in self.only.iter().chain(&self.skip) {
            if !graph
                .resources
                .iter()
                .any(|resource| resource.key() == *name || resource.kind() == name)
            {
                return Err(unknown(name, graph));
            }
        }
        let named = |names: &[String], key: &str, kind: &str| {
            names.iter().any(|name| name == key || name == kind)
        };
        let chosen = graph.resources.iter().map(|resource| {
            let (key, kind) = (resource.key(), resource.kind());
            (self.only.is_empty() || named(&self.only, &key, kind))
                && !named(&self.skip, &key, kind)
        });
        Ok(chosen.collect())
    }

    /// For each resource whether it must be read: the chosen ones, and what they need.
    pub fn read(chosen: &[bool], graph: &Graph) -> Vec<bool> {
        let mut read = chosen.to_vec();
        let mut open: Vec<usize> = (0..chosen.len())
            .filter(|position| chosen[*position])
            .collect();
        while let Some(position) = open.pop() {
            for need in graph.depends_on(position) {
                if !read[*need] {
                    read[*need] = true;
                    open.push(*need);
                }
            }
        }
        read
    }
}

fn unknown(name: &str, graph: &Graph) -> Error {
    let mut names: Vec<String> = graph
        .resources
        .iter()
        .flat_map(|resource| [resource.key(), resource.kind().to_string()])
        .collect();
    names.sort_unstable();
    names.dedup();
    let nearest = names
        .iter()
        .min_by_key(|known| strsim::damerau_levenshtein(known, name))
        .cloned()
        .unwrap_or_default();
    Error::usage(format!(
        "there is no resource `{name}`, did you mean `{nearest}`?"
    ))
    .hint(format!("resources and types: {}", names.join(", ")))
}

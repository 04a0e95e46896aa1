//! The graph of resources in dependency order; independent resources are visited concurrently.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;

use crate::base::error::{Error, Result};
use crate::provision::resource::Resource;

/// Direction of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Dependencies before dependents, for creation.
    DependenciesFirst,
    /// Dependents before dependencies, for deletion.
    DependentsFirst,
}

/// Resources of a pipeline, each after its dependencies.
pub struct Graph {
    resources: Vec<Box<dyn Resource>>,
    /// Keys of the resources that each resource depends on.
    dependencies: BTreeMap<String, BTreeSet<String>>,
}

/// Result of visiting one resource.
pub enum Visit<T> {
    Done(T),
    Failed(Error),
    /// Not visited, because the visit of a resource that must precede it failed.
    Skipped,
}

impl Graph {
    /// Creates the graph from a list in dependency order, which excludes cycles.
    ///
    /// # Panics
    /// The list is not in dependency order, or a resource depends on an unknown key. Every test
    /// that provisions finds such a mistake.
    pub fn new(resources: Vec<Box<dyn Resource>>) -> Self {
        let mut dependencies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for resource in &resources {
            let depends_on: BTreeSet<String> = resource.depends_on().into_iter().collect();
            for key in &depends_on {
                let is_before = dependencies.contains_key(key);
                assert!(is_before, "`{}` precedes its dependency `{key}`", resource.key());
            }
            dependencies.insert(resource.key(), depends_on);
        }
        Self { resources, dependencies }
    }

    /// All resources, each after its dependencies.
    pub fn resources(&self) -> impl Iterator<Item = &dyn Resource> {
        self.resources.iter().map(Box::as_ref)
    }

    /// The resource with this key.
    pub fn resource(&self, key: &str) -> Option<&dyn Resource> {
        self.resources().find(|resource| resource.key() == key)
    }

    /// Keys of the resources that a resource depends on directly.
    pub fn depends_on(&self, key: &str) -> impl Iterator<Item = &str> {
        self.dependencies.get(key).into_iter().flatten().map(String::as_str)
    }

    /// The given resources and all resources that they depend on, directly or indirectly.
    pub fn with_dependencies(&self, keys: &BTreeSet<String>) -> BTreeSet<String> {
        let mut all = keys.clone();
        let mut open: Vec<String> = keys.iter().cloned().collect();
        while let Some(key) = open.pop() {
            for dependency in self.depends_on(&key) {
                if all.insert(dependency.to_string()) {
                    open.push(dependency.to_string());
                }
            }
        }
        all
    }

    /// Visits every resource once, up to `max_concurrency` at a time. If a visit fails, the
    /// resources that must be visited after it are skipped, and all others are still visited. The
    /// results are in graph order.
    pub async fn walk<'a, T>(
        &'a self,
        order: Order,
        max_concurrency: usize,
        visit: impl Fn(&'a dyn Resource) -> LocalBoxFuture<'a, Result<T>>,
    ) -> Vec<(String, Visit<T>)> {
        let keys: Vec<String> = self.resources().map(Resource::key).collect();
        let mut waits_for = self.waits_for(order);
        let mut visits: BTreeMap<String, Visit<T>> = BTreeMap::new();
        let mut is_started = BTreeSet::new();
        let mut running = FuturesUnordered::new();
        loop {
            for (key, resource) in keys.iter().zip(self.resources()) {
                let is_ready = waits_for.get(key).is_none_or(BTreeSet::is_empty);
                if running.len() < max_concurrency && is_ready && is_started.insert(key.clone()) {
                    let visiting = visit(resource);
                    running.push(async move { (key.clone(), visiting.await) });
                }
            }
            let Some((key, result)) = running.next().await else {
                break;
            };
            if result.is_ok() {
                waits_for.values_mut().for_each(|waiting| {
                    waiting.remove(&key);
                });
            }
            visits.insert(key, result.map_or_else(Visit::Failed, Visit::Done));
        }
        drop(running);
        keys.into_iter()
            .map(|key| {
                let visit = visits.remove(&key).unwrap_or(Visit::Skipped);
                (key, visit)
            })
            .collect()
    }

    /// For each resource, the keys of the resources that must be visited before it.
    fn waits_for(&self, order: Order) -> BTreeMap<String, BTreeSet<String>> {
        match order {
            Order::DependenciesFirst => self.dependencies.clone(),
            Order::DependentsFirst => {
                let mut dependents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
                for (key, depends_on) in &self.dependencies {
                    for dependency in depends_on {
                        dependents.entry(dependency.clone()).or_default().insert(key.clone());
                    }
                }
                dependents
            }
        }
    }
}

//! Order: each resource after what it needs, what is independent side by side.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;

use crate::base::error::{Error, Result};
use crate::provision::resource::Resource;

/// Which way to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What is needed comes first: making.
    Needs,
    /// What needs it comes first: removing.
    Dependents,
}

/// Resources of a pipeline, each after what it needs.
pub struct Graph {
    pub resources: Vec<Box<dyn Resource>>,
    /// Positions of what each resource needs.
    needs: Vec<BTreeSet<usize>>,
}

/// What came of the visit of one resource.
pub enum Visit<T> {
    Done(T),
    Failed(Error),
    /// Not visited, since what it waits for failed.
    Left,
}

impl Graph {
    /// # Panics
    /// A resource needs one that is not there: a mistake in the program, which a test finds.
    pub fn new(resources: Vec<Box<dyn Resource>>) -> Self {
        let keys: Vec<String> = resources.iter().map(|resource| resource.key()).collect();
        let position = |needed: &String| {
            keys.iter()
                .position(|key| key == needed)
                .expect("every need is a resource of the graph")
        };
        let needs = resources
            .iter()
            .map(|resource| resource.depends_on().iter().map(position).collect())
            .collect();
        Self { resources, needs }
    }

    /// Position of a resource.
    pub fn position(&self, key: &str) -> Option<usize> {
        self.resources
            .iter()
            .position(|resource| resource.key() == key)
    }

    /// Positions of what a resource needs.
    pub fn depends_on(&self, position: usize) -> &BTreeSet<usize> {
        &self.needs[position]
    }

    /// Visits every resource once, at most `at_once` at a time. What waits for one that
    /// failed is left; all else is still visited.
    pub async fn walk<'a, T>(
        &'a self,
        order: Order,
        at_once: usize,
        visit: impl Fn(usize, &'a dyn Resource) -> LocalBoxFuture<'a, Result<T>>,
    ) -> Vec<Visit<T>> {
        let count = self.resources.len();
        let mut waits_for: Vec<BTreeSet<usize>> = match order {
            Order::Needs => self.needs.clone(),
            Order::Dependents => (0..count)
                .map(|position| {
                    (0..count)
                        .filter(|other| self.needs[*other].contains(&position))
                        .collect()
                })
                .collect(),
        };
        let mut visits: Vec<Option<Visit<T>>> = (0..count).map(|_| None).collect();
        let mut is_started = vec![false; count];
        let mut running = FuturesUnordered::new();
        loop {
            for position in 0..count {
                if running.len() < at_once
                    && !is_started[position]
                    && waits_for[position].is_empty()
                {
                    is_started[position] = true;
                    let visiting = visit(position, self.resources[position].as_ref());
                    running.push(async move { (position, visiting.await) });
                }
            }
            let Some((position, outcome)) = running.next().await else {
                break;
            };
            if outcome.is_ok() {
                waits_for.iter_mut().for_each(|waiting| {
                    waiting.remove(&position);
                });
            }
            visits[position] = Some(outcome.map_or_else(Visit::Failed, Visit::Done));
        }
        visits
            .into_iter()
            .map(|visit| visit.unwrap_or(Visit::Left))
            .collect()
    }
}

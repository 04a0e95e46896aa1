//! Incremental listing of a lake: selects objects that are not ingested yet.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::base::error::Error;
use crate::base::model::Kind;
use crate::data::lake::objects::{Layout, Objects, RawObject, list_objects, ordered};
use crate::data::storage::Lake;

/// Ingested objects: per partition the highest position and the bytes of objects up to it.
///
/// An object that arrived late, was overwritten or deleted changes the bytes up to that position.
/// The partition is then read again, which is safe because duplicates are dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWaterMarks(BTreeMap<String, (i64, u64)>);

/// Listing progress of one partition.
#[derive(Debug, Clone, Copy, Default)]
struct PartitionProgress {
    last_position: i64,
    bytes: u64,
    /// Bytes of objects up to the previous high-water mark.
    bytes_below: u64,
}

/// Progress of listing the objects of a kind; clones share it. Memory grows with the number of
/// partitions, not of objects.
#[derive(Debug, Clone)]
pub struct LakeListing {
    previous: Arc<HighWaterMarks>,
    progress: Arc<Mutex<ListingProgress>>,
}

#[derive(Debug, Default)]
struct ListingProgress {
    partitions: BTreeMap<String, PartitionProgress>,
    objects: u64,
    new_objects: u64,
    new_bytes: u64,
}

impl LakeListing {
    /// Resumes after the high-water marks of an earlier run.
    pub fn after(previous: HighWaterMarks) -> Self {
        Self { previous: Arc::new(previous), progress: Arc::default() }
    }

    fn progress(&self) -> MutexGuard<'_, ListingProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the objects that are not ingested yet. Partitions that changed below their high-water
    /// mark come last and are listed a second time, because the changes are known only after the
    /// first listing.
    pub fn fresh(&self, lake: &Lake, layout: &Layout, kind: Kind) -> Objects {
        let (listed_lake, layout) = (lake.clone(), layout.clone());
        // Sorted after they are recorded, so that the number of objects is known earlier.
        ordered(lake, self.select_new(move || list_objects(&listed_lake, &layout, kind)))
    }

    fn select_new(&self, list: impl Fn() -> Objects + Send + 'static) -> Objects {
        let (first_pass, second_pass) = (self.clone(), self.clone());
        let above = list().try_filter(move |object| ready(first_pass.record(object)));
        let below = stream::once(async move {
            let changed = second_pass.changed_partitions();
            if changed.is_empty() {
                return Ok::<Objects, Error>(stream::empty().boxed());
            }
            tracing::info!(
                partitions = changed.len(),
                "objects arrived late or were overwritten: reading their partitions again"
            );
            Ok(list()
                .try_filter(move |object| {
                    ready(changed.contains(&object.partition) && second_pass.record_again(object))
                })
                .boxed())
        });
        above.chain(below.try_flatten()).boxed()
    }

    /// Records an object. Returns whether it is above the high-water mark of its partition.
    fn record(&self, object: &RawObject) -> bool {
        let mut progress = self.progress();
        progress.objects += 1;
        let mut partition =
            progress.partitions.get(&object.partition).copied().unwrap_or(PartitionProgress {
                last_position: i64::MIN,
                ..PartitionProgress::default()
            });
        partition.last_position = partition.last_position.max(object.position);
        partition.bytes += object.size_bytes;
        let is_new = self.is_above_mark(object);
        if is_new {
            progress.new_objects += 1;
            progress.new_bytes += object.size_bytes;
        } else {
            partition.bytes_below += object.size_bytes;
        }
        match progress.partitions.get_mut(&object.partition) {
            Some(entry) => *entry = partition,
            None => {
                progress.partitions.insert(object.partition.clone(), partition);
            }
        }
        is_new
    }

    /// Records an object of a changed partition in the second listing. Returns whether it is read,
    /// which excludes objects that the first listing already returned.
    fn record_again(&self, object: &RawObject) -> bool {
        let is_selected = !self.is_above_mark(object);
        if is_selected {
            let mut progress = self.progress();
            progress.new_objects += 1;
            progress.new_bytes += object.size_bytes;
        }
        is_selected
    }

    fn is_above_mark(&self, object: &RawObject) -> bool {
        self.previous
            .0
            .get(&object.partition)
            .is_none_or(|(position, _)| object.position > *position)
    }

    /// Returns the partitions whose bytes up to the high-water mark differ from those ingested.
    fn changed_partitions(&self) -> BTreeSet<String> {
        let progress = self.progress();
        let changed = progress.partitions.iter().filter(|(name, partition)| {
            self.previous.0.get(*name).is_some_and(|(_, bytes)| partition.bytes_below != *bytes)
        });
        changed.map(|(name, _)| name.clone()).collect()
    }

    /// Number of objects listed so far.
    pub fn objects(&self) -> u64 {
        self.progress().objects
    }

    /// Number of new objects listed so far, and their bytes.
    pub fn fresh_objects(&self) -> (u64, u64) {
        let progress = self.progress();
        (progress.new_objects, progress.new_bytes)
    }

    /// High-water marks after the new objects are ingested.
    pub fn taken(&self) -> HighWaterMarks {
        let mut marks = HighWaterMarks::clone(&self.previous);
        marks.0.extend(
            self.progress().partitions.iter().map(|(name, partition)| {
                (name.clone(), (partition.last_position, partition.bytes))
            }),
        );
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::lake::objects::raw_object;
    use object_store::path::Path;

    fn object(name: &str, size_bytes: u64) -> RawObject {
        let parts: Vec<String> = name.split('/').map(String::from).collect();
        raw_object("a.pin", &parts, Path::from(name), size_bytes, 77)
            .expect("object of the sink connector")
    }

    /// Returns the paths of new objects, and the high-water marks afterwards.
    async fn list_new(
        previous: &HighWaterMarks,
        objects: &[RawObject],
    ) -> (Vec<String>, HighWaterMarks) {
        let listing = LakeListing::after(previous.clone());
        let objects = objects.to_vec();
        let count = objects.len() as u64;
        let new_objects =
            listing.select_new(move || stream::iter(objects.clone().into_iter().map(Ok)).boxed());
        let new_objects: Vec<RawObject> = new_objects.try_collect().await.expect("list objects");
        assert_eq!(listing.objects(), count);
        assert_eq!(
            listing.fresh_objects(),
            (new_objects.len() as u64, new_objects.iter().map(|object| object.size_bytes).sum())
        );
        (new_objects.iter().map(|object| object.path.to_string()).collect(), listing.taken())
    }

    #[tokio::test]
    async fn selects_new_objects_and_partitions_that_changed_below_the_mark() {
        let first = vec![
            object("p=0/a.pin+0+0.json", 10),
            object("p=0/a.pin+0+5.json", 10),
            object("p=1/a.pin+1+0.json", 10),
        ];
        let (new, marks) = list_new(&HighWaterMarks::default(), &first).await;
        assert_eq!(new.len(), 3);
        assert_eq!(
            list_new(&marks, &first).await,
            (Vec::new(), marks.clone()),
            "no object is read twice"
        );
        let mut grown = first.clone();
        grown.push(object("p=0/a.pin+0+9.json", 3));
        let (new, marks) = list_new(&marks, &grown).await;
        assert_eq!(new, ["p=0/a.pin+0+9.json"]);
        // The first object is late: its offset is below the mark of its partition. The second is
        // new.
        grown.push(object("p=0/a.pin+0+3.json", 2));
        grown.push(object("p=0/a.pin+0+11.json", 2));
        let (new, marks) = list_new(&marks, &grown).await;
        assert_eq!(new.len(), 5, "{new:?}");
        assert_eq!(new[0], "p=0/a.pin+0+11.json");
        assert_eq!(list_new(&marks, &grown).await.0, Vec::<String>::new());
        // Overwritten with a longer object.
        grown[2].size_bytes = 11;
        assert_eq!(list_new(&marks, &grown).await.0, ["p=1/a.pin+1+0.json"]);
    }
}

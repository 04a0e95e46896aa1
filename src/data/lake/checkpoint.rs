//! Telling which objects of a lake are new, while they are being listed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::base::error::Error;
use crate::base::model::Kind;
use crate::data::lake::objects::{Layout, Objects, RawObject, list_objects, ordered};
use crate::data::storage::Lake;

/// Which objects have been taken: how far each lane, and how many bytes that were.
///
/// An object that came late, was written again or went away changes the bytes below the
/// position; its lane is then read anew, which does no harm, since repeated records count once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWaterMarks(BTreeMap<String, (i64, u64)>);

/// A lane as it is listed.
#[derive(Debug, Clone, Copy, Default)]
struct PartitionProgress {
    last_position: i64,
    bytes: u64,
    /// Of objects up to where it had been taken.
    bytes_below: u64,
}

/// What a listing tells about a kind's objects; clones share it. Holds the lanes, however
/// many objects are in them.
#[derive(Debug, Clone)]
pub struct LakeListing {
    before: Arc<HighWaterMarks>,
    seen: Arc<Mutex<ListingProgress>>,
}

#[derive(Debug, Default)]
struct ListingProgress {
    partitions: BTreeMap<String, PartitionProgress>,
    objects: u64,
    fresh_objects: u64,
    fresh_bytes: u64,
}

impl LakeListing {
    /// Goes on from what has been taken before.
    pub fn after(before: HighWaterMarks) -> Self {
        Self {
            before: Arc::new(before),
            seen: Arc::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, ListingProgress> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects that are not taken yet. Lanes that changed below come last, and are
    /// listed again for it: which ones did is known only when all have been seen.
    pub fn fresh(&self, lake: &Lake, layout: &Layout, kind: Kind) -> Objects {
        let (owned, layout) = (lake.clone(), layout.clone());
        // Ordered once they are noted: how many there are is known the sooner.
        ordered(
            lake,
            self.fresh_of(move || list_objects(&owned, &layout, kind)),
        )
    }

    fn fresh_of(&self, list: impl Fn() -> Objects + Send + 'static) -> Objects {
        let (first, again) = (self.clone(), self.clone());
        let beyond = list().try_filter(move |object| ready(first.notes_as_new(object)));
        let below = stream::once(async move {
            let changed = again.changed();
            if changed.is_empty() {
                return Ok::<Objects, Error>(stream::empty().boxed());
            }
            tracing::info!(
                partitions = changed.len(),
                "objects came late or were written again: reading their lanes anew"
            );
            Ok(list()
                .try_filter(move |object| {
                    ready(changed.contains(&object.partition) && again.notes_again(object))
                })
                .boxed())
        });
        beyond.chain(below.try_flatten()).boxed()
    }

    /// Notes an object; whether it lies beyond what was taken of its lane.
    fn notes_as_new(&self, object: &RawObject) -> bool {
        let mut seen = self.seen();
        seen.objects += 1;
        let mut partition =
            seen.partitions
                .get(&object.partition)
                .copied()
                .unwrap_or(PartitionProgress {
                    last_position: i64::MIN,
                    ..PartitionProgress::default()
                });
        partition.last_position = partition.last_position.max(object.position);
        partition.bytes += object.size_bytes;
        let is_new = self.is_beyond(object);
        if is_new {
            seen.fresh_objects += 1;
            seen.fresh_bytes += object.size_bytes;
        } else {
            partition.bytes_below += object.size_bytes;
        }
        match seen.partitions.get_mut(&object.partition) {
            Some(known) => *known = partition,
            None => {
                seen.partitions.insert(object.partition.clone(), partition);
            }
        }
        is_new
    }

    /// Notes an object of a lane that is read anew; not those that were new the first time.
    fn notes_again(&self, object: &RawObject) -> bool {
        let is_wanted = !self.is_beyond(object);
        if is_wanted {
            let mut seen = self.seen();
            seen.fresh_objects += 1;
            seen.fresh_bytes += object.size_bytes;
        }
        is_wanted
    }

    fn is_beyond(&self, object: &RawObject) -> bool {
        self.before
            .0
            .get(&object.partition)
            .is_none_or(|(position, _)| object.position > *position)
    }

    /// Lanes of which other bytes lie below than were taken.
    fn changed(&self) -> BTreeSet<String> {
        let seen = self.seen();
        let changed = seen.partitions.iter().filter(|(name, partition)| {
            self.before
                .0
                .get(*name)
                .is_some_and(|(_, bytes)| partition.bytes_below != *bytes)
        });
        changed.map(|(name, _)| name.clone()).collect()
    }

    /// Objects that were seen so far.
    pub fn objects(&self) -> u64 {
        self.seen().objects
    }

    /// Objects that were told to be new so far, and their bytes.
    pub fn fresh_objects(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.fresh_objects, seen.fresh_bytes)
    }

    /// What is taken once the new ones are.
    pub fn taken(&self) -> HighWaterMarks {
        let mut taken = HighWaterMarks::clone(&self.before);
        taken.0.extend(
            self.seen().partitions.iter().map(|(name, partition)| {
                (name.clone(), (partition.last_position, partition.bytes))
            }),
        );
        taken
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
            .expect("an object of the sink")
    }

    /// The names of what is new, and what is taken afterwards.
    async fn fresh(
        before: &HighWaterMarks,
        objects: &[RawObject],
    ) -> (Vec<String>, HighWaterMarks) {
        let listing = LakeListing::after(before.clone());
        let objects = objects.to_vec();
        let count = objects.len() as u64;
        let found =
            listing.fresh_of(move || stream::iter(objects.clone().into_iter().map(Ok)).boxed());
        let found: Vec<RawObject> = found.try_collect().await.expect("lists");
        assert_eq!(listing.objects(), count);
        assert_eq!(
            listing.fresh_objects(),
            (
                found.len() as u64,
                found.iter().map(|object| object.size_bytes).sum()
            )
        );
        (
            found.iter().map(|object| object.path.to_string()).collect(),
            listing.taken(),
        )
    }

    #[tokio::test]
    async fn only_what_is_new_is_read_and_a_lane_that_changed_below_is_read_anew() {
        let first = vec![
            object("p=0/a.pin+0+0.json", 10),
            object("p=0/a.pin+0+5.json", 10),
            object("p=1/a.pin+1+0.json", 10),
        ];
        let (new, taken) = fresh(&HighWaterMarks::default(), &first).await;
        assert_eq!(new.len(), 3);
        assert_eq!(
            fresh(&taken, &first).await,
            (Vec::new(), taken.clone()),
            "nothing is read twice"
        );
        let mut grown = first.clone();
        grown.push(object("p=0/a.pin+0+9.json", 3));
        let (new, taken) = fresh(&taken, &grown).await;
        assert_eq!(new, ["p=0/a.pin+0+9.json"]);
        // Late: its offset lies before what was taken of its partition. One that is new comes with it.
        grown.push(object("p=0/a.pin+0+3.json", 2));
        grown.push(object("p=0/a.pin+0+11.json", 2));
        let (new, taken) = fresh(&taken, &grown).await;
        assert_eq!(new.len(), 5, "{new:?}");
        assert_eq!(new[0], "p=0/a.pin+0+11.json");
        assert_eq!(fresh(&taken, &grown).await.0, Vec::<String>::new());
        // Written again, longer than it was.
        grown[2].size_bytes = 11;
        assert_eq!(fresh(&taken, &grown).await.0, ["p=1/a.pin+1+0.json"]);
    }
}

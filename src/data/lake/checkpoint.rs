//! Incremental listing of a lake: selects objects that have not been read yet.
//!
//! What was read is recorded as ranges of positions with a fingerprint of all objects in each. See
//! `docs/decisions/0013-objects-read.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::Kind;
use crate::data::lake::listing::SkippedObject;
use crate::data::lake::objects::{Found, Layout, Listing, Objects, RawObject, list_kind, ordered};
use crate::data::storage::Lake;

/// Maximum number of objects in a range of several positions. A lower maximum makes a late or
/// replaced object cheaper, because its whole range is read again; a higher one makes the
/// checkpoint smaller.
const MAX_RANGE_OBJECTS: u64 = 1_000;
/// Maximum number of skipped objects that are named. All are counted.
const NAMED_OBJECTS: usize = 10;
/// Version of the stored format of [`LakeCheckpoint`].
const FORMAT: u32 = 2;

/// A set of objects: their number and the sum of their identities, which does not depend on the
/// order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fingerprint {
    objects: u64,
    sum: u64,
}

impl Fingerprint {
    fn of(identity: u64) -> Self {
        Self { objects: 1, sum: identity }
    }

    fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Positions from `first` to `last` of a partition. Every object between them was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredRange", into = "StoredRange")]
struct ReadRange {
    first: i64,
    last: i64,
    fingerprint: Fingerprint,
}

/// A range as it is stored: first and last position, number of objects, sum of their identities.
type StoredRange = (i64, i64, u64, u64);

impl From<StoredRange> for ReadRange {
    fn from((first, last, objects, sum): StoredRange) -> Self {
        Self { first, last, fingerprint: Fingerprint { objects, sum } }
    }
}

impl From<ReadRange> for StoredRange {
    fn from(range: ReadRange) -> Self {
        let Fingerprint { objects, sum } = range.fingerprint;
        (range.first, range.last, objects, sum)
    }
}

/// The objects whose records a table contains: for each partition, sorted ranges that do not
/// overlap.
///
/// An object outside the ranges is new. An object that arrived late within a range, was replaced or
/// deleted changes the fingerprint of its range. The objects of that range are then read again,
/// which is safe because duplicates are dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadObjects(BTreeMap<String, Vec<ReadRange>>);

impl ReadObjects {
    fn ranges(&self, partition: &str) -> &[ReadRange] {
        self.0.get(partition).map_or(&[], Vec::as_slice)
    }

    /// Returns the index of the range that contains the position of an object.
    fn range_of(&self, object: &RawObject) -> Option<usize> {
        let ranges = self.ranges(&object.partition);
        let index = ranges.partition_point(|range| range.last < object.position);
        ranges.get(index).filter(|range| range.first <= object.position).map(|_| index)
    }
}

/// The checkpoint that a clean table stores: a lake, and those of its objects whose records the
/// table contains.
#[derive(Debug, PartialEq, Eq)]
pub struct LakeCheckpoint {
    pub lake: String,
    /// `None` if another version of pinpipe recorded the objects in another format.
    pub objects: Option<ReadObjects>,
}

/// The stored JSON of a [`LakeCheckpoint`].
#[derive(Serialize, Deserialize)]
struct StoredCheckpoint<T> {
    /// Version 1 has no such field; it stored the sum of the object sizes of each partition.
    #[serde(default)]
    format: u32,
    lake: String,
    objects: T,
}

impl LakeCheckpoint {
    /// Parses the text of a checkpoint. Returns `None` if the text does not name a lake.
    pub fn parse(text: &str) -> Option<Self> {
        let stored: StoredCheckpoint<serde_json::Value> = serde_json::from_str(text).ok()?;
        let objects = (stored.format == FORMAT)
            .then(|| serde_json::from_value(stored.objects).ok())
            .flatten();
        Some(Self { lake: stored.lake, objects })
    }

    /// Returns the text of a checkpoint of these objects.
    ///
    /// # Errors
    /// The text cannot be encoded.
    pub fn text(lake: String, objects: &ReadObjects) -> Result<String> {
        serde_json::to_string(&StoredCheckpoint { format: FORMAT, lake, objects })
            .context(|| "cannot encode the checkpoint of the lake")
    }
}

/// Objects of the lake that were not read.
#[derive(Debug, Clone, Default)]
pub struct SkippedObjects {
    pub count: u64,
    /// The first unreadable objects, and the first object for each other reason.
    pub named: Vec<SkippedObject>,
}

impl SkippedObjects {
    fn push(&mut self, object: SkippedObject) {
        if self.named.len() < NAMED_OBJECTS {
            self.named.push(object);
        }
    }
}

/// Listing progress of one partition.
#[derive(Debug, Default)]
struct PartitionProgress {
    /// The objects that the first listing found in each range of the previous run.
    found: Vec<Fingerprint>,
    /// Position and identity of the objects that were returned for reading.
    returned: Vec<(i64, u64)>,
    /// Those of `returned` that could not be read.
    unreadable: BTreeSet<(i64, u64)>,
}

impl PartitionProgress {
    fn new(ranges: usize) -> Self {
        Self { found: vec![Fingerprint::default(); ranges], ..Self::default() }
    }

    /// Records an object: in this range of the previous run, or as returned for reading if it is in
    /// none.
    fn record(&mut self, range: Option<usize>, object: &RawObject) {
        match range.and_then(|range| self.found.get_mut(range)) {
            Some(found) => found.add(Fingerprint::of(object.identity)),
            None => self.returned.push((object.position, object.identity)),
        }
    }
}

/// Progress of listing the objects of a kind; clones share it. Memory grows with the number of
/// partitions and by 16 bytes for each new object.
#[derive(Debug, Clone)]
pub struct LakeListing {
    previous: Arc<ReadObjects>,
    progress: Arc<Mutex<ListingProgress>>,
    /// Start of the listing, in milliseconds since the epoch.
    started_ms: i64,
}

#[derive(Debug, Default)]
struct ListingProgress {
    partitions: BTreeMap<String, PartitionProgress>,
    objects: u64,
    new_objects: u64,
    new_bytes: u64,
    skipped: SkippedObjects,
}

impl LakeListing {
    /// Resumes after an earlier run.
    pub fn after(previous: ReadObjects) -> Self {
        let started_ms = chrono::Utc::now().timestamp_millis();
        Self { previous: Arc::new(previous), progress: Arc::default(), started_ms }
    }

    fn progress(&self) -> MutexGuard<'_, ListingProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the objects that have not been read yet. The objects of changed ranges come last and
    /// are listed a second time, because the changes are known only after the first listing.
    pub fn fresh(&self, lake: &Lake, layout: &Layout, kind: Kind) -> Objects {
        let (listed_lake, layout) = (lake.clone(), layout.clone());
        // Sorted after they are recorded, so that the number of objects is known earlier.
        ordered(lake, self.select_new(move || list_kind(&listed_lake, &layout, kind)))
    }

    fn select_new(&self, list: impl Fn() -> Listing + Send + 'static) -> Objects {
        let (first_pass, second_pass) = (self.clone(), self.clone());
        let outside = list().try_filter_map(move |found| {
            ready(Ok(match found {
                Found::Object(object) => first_pass.record(&object).then_some(object),
                Found::Skipped(skipped) => {
                    first_pass.skip_unsupported(skipped);
                    None
                }
            }))
        });
        let inside = stream::once(async move {
            let changed = second_pass.changed_ranges();
            if changed.is_empty() {
                return Ok::<Objects, Error>(stream::empty().boxed());
            }
            tracing::info!(
                ranges = changed.len(),
                "objects arrived late, were replaced or deleted: reading their ranges again"
            );
            let changed_objects = list().try_filter_map(move |found| {
                ready(Ok(match found {
                    Found::Object(object) => {
                        second_pass.record_again(&object, &changed).then_some(object)
                    }
                    Found::Skipped(_) => None,
                }))
            });
            Ok(changed_objects.boxed())
        });
        outside.chain(inside.try_flatten()).boxed()
    }

    /// Records an object. Returns whether it is outside the ranges of the previous run.
    fn record(&self, object: &RawObject) -> bool {
        let range = self.previous.range_of(object);
        let mut progress = self.progress();
        progress.objects += 1;
        match progress.partitions.get_mut(&object.partition) {
            Some(partition) => partition.record(range, object),
            None => {
                let ranges = self.previous.ranges(&object.partition).len();
                let mut partition = PartitionProgress::new(ranges);
                partition.record(range, object);
                progress.partitions.insert(object.partition.clone(), partition);
            }
        }
        let is_new = range.is_none();
        if is_new {
            progress.new_objects += 1;
            progress.new_bytes += object.size_bytes;
        }
        is_new
    }

    /// Records an object of a changed range in the second listing. Returns whether it is read,
    /// which excludes objects that the first listing already returned.
    fn record_again(&self, object: &RawObject, changed: &BTreeSet<(String, usize)>) -> bool {
        let Some(range) = self.previous.range_of(object) else { return false };
        if !changed.contains(&(object.partition.clone(), range)) {
            return false;
        }
        let mut progress = self.progress();
        progress.partitions.entry(object.partition.clone()).or_default().record(None, object);
        progress.new_objects += 1;
        progress.new_bytes += object.size_bytes;
        true
    }

    /// Returns the ranges whose objects differ from those read: partition and index.
    fn changed_ranges(&self) -> BTreeSet<(String, usize)> {
        let progress = self.progress();
        let mut changed = BTreeSet::new();
        for (name, partition) in &progress.partitions {
            let ranges = self.previous.ranges(name).iter().zip(&partition.found).enumerate();
            // A range whose objects were all deleted has nothing to read.
            let differing = ranges
                .filter(|(_, (range, found))| range.fingerprint != **found && found.objects > 0);
            changed.extend(differing.map(|(index, _)| (name.clone(), index)));
        }
        changed
    }

    /// Counts an object with an unsupported name. Names the first one for each reason.
    fn skip_unsupported(&self, object: SkippedObject) {
        let mut progress = self.progress();
        let skipped = &mut progress.skipped;
        skipped.count += 1;
        if skipped.named.iter().all(|named| named.reason != object.reason) {
            skipped.push(object);
        }
    }

    /// Records that an object cannot be read. It is not part of the checkpoint, so that the next
    /// run tries to read it again.
    pub fn skip_unreadable(&self, object: &RawObject, name: String, error: &Error) {
        let mut progress = self.progress();
        progress.skipped.count += 1;
        progress.skipped.push(SkippedObject { object: name, reason: error.to_string() });
        let partition = progress.partitions.entry(object.partition.clone()).or_default();
        partition.unreadable.insert((object.position, object.identity));
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

    /// Number of objects that were returned and could be read.
    pub fn read_count(&self) -> u64 {
        let progress = self.progress();
        let unreadable = progress.partitions.values().map(|it| it.unreadable.len() as u64);
        progress.new_objects - unreadable.sum::<u64>()
    }

    /// Objects that were not read so far.
    pub fn skipped(&self) -> SkippedObjects {
        self.progress().skipped.clone()
    }

    /// Returns the objects for the next checkpoint, which assumes that all returned objects have
    /// been read. Partitions that are no longer in the lake are dropped.
    pub fn read_objects(&self) -> ReadObjects {
        let progress = self.progress();
        let partitions = progress.partitions.iter().map(|(name, partition)| {
            let previous = self.previous.ranges(name).iter().zip(&partition.found);
            let unchanged = previous.filter(|(range, found)| range.fingerprint == **found);
            let mut ranges: Vec<ReadRange> = unchanged.map(|(range, _)| *range).collect();
            let read =
                partition.returned.iter().filter(|object| !partition.unreadable.contains(*object));
            ranges.extend(read.map(|(position, identity)| ReadRange {
                first: *position,
                last: *position,
                fingerprint: Fingerprint::of(*identity),
            }));
            (name.clone(), merged(ranges, &partition.unreadable, self.started_ms))
        });
        ReadObjects(partitions.filter(|(_, ranges)| !ranges.is_empty()).collect())
    }
}

/// Sorts ranges and joins neighbours with at most [`MAX_RANGE_OBJECTS`] objects together.
///
/// Ranges are not joined across a position at which the next run may find an object, because that
/// run would read the whole range again. Such positions are those of unreadable objects, and those
/// just after `started_ms`: an object without an offset that is written later has a higher
/// position, but a lower one than objects that are dated in the future.
fn merged(
    mut ranges: Vec<ReadRange>,
    unreadable: &BTreeSet<(i64, u64)>,
    started_ms: i64,
) -> Vec<ReadRange> {
    ranges.sort_unstable_by_key(|range| range.first);
    let mut merged: Vec<ReadRange> = Vec::new();
    for range in ranges {
        if let Some(last) = merged.last_mut() {
            let objects = last.fingerprint.objects + range.fingerprint.objects;
            let is_separate = || {
                let between = (last.last, 0)..(range.first, 0);
                last.last <= started_ms && range.first > started_ms
                    || unreadable.range(between).any(|(position, _)| *position > last.last)
            };
            // Ranges do not overlap, so objects of one position are always joined.
            if last.last >= range.first || objects <= MAX_RANGE_OBJECTS && !is_separate() {
                last.last = last.last.max(range.last);
                last.fingerprint.add(range.fingerprint);
                continue;
            }
        }
        merged.push(range);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::lake::listing::ListedObject;
    use crate::data::lake::objects::raw_object;
    use object_store::path::Path;
    use proptest::prelude::*;

    /// An object as it is listed; its modification time is `written_ms`.
    fn object(name: &str, version: &str, written_ms: i64) -> RawObject {
        let listed = ListedObject {
            path: Path::from(name),
            parts: name.split('/').map(String::from).collect(),
            size_bytes: 10,
            written_ms,
            version: version.into(),
        };
        match raw_object("a.pin", listed, "/") {
            Some(Found::Object(object)) => object,
            other => panic!("expected an object, got {other:?}"),
        }
    }

    fn listing_of(objects: &[RawObject]) -> impl Fn() -> Listing + Send + 'static + use<> {
        let objects = objects.to_vec();
        move || stream::iter(objects.clone().into_iter().map(|it| Ok(Found::Object(it)))).boxed()
    }

    /// Returns the new objects, and the objects read afterwards.
    fn read_new(previous: &ReadObjects, objects: &[RawObject]) -> (Vec<RawObject>, ReadObjects) {
        read_new_at(previous, objects, i64::MAX)
    }

    /// As [`read_new`], with a listing that starts at this time.
    fn read_new_at(
        previous: &ReadObjects,
        objects: &[RawObject],
        started_ms: i64,
    ) -> (Vec<RawObject>, ReadObjects) {
        let listing = LakeListing { started_ms, ..LakeListing::after(previous.clone()) };
        let new_objects: Vec<RawObject> =
            futures::executor::block_on(listing.select_new(listing_of(objects)).try_collect())
                .expect("list objects");
        assert_eq!(listing.objects(), objects.len() as u64);
        assert_eq!(
            listing.fresh_objects(),
            (new_objects.len() as u64, new_objects.iter().map(|object| object.size_bytes).sum())
        );
        (new_objects, listing.read_objects())
    }

    fn paths(objects: &[RawObject]) -> Vec<String> {
        objects.iter().map(|object| object.path.to_string()).collect()
    }

    #[test]
    fn selects_new_objects_and_ranges_that_changed() {
        let first = vec![
            object("p=0/a.pin+0+0.json", "1", 1),
            object("p=0/a.pin+0+5.json", "1", 1),
            object("p=1/a.pin+1+0.json", "1", 1),
        ];
        let (new, read) = read_new(&ReadObjects::default(), &first);
        assert_eq!(new.len(), 3);
        let (new, again) = read_new(&read, &first);
        assert_eq!((paths(&new), again), (Vec::new(), read.clone()), "no object is read twice");
        let mut grown = first.clone();
        grown.push(object("p=0/a.pin+0+9.json", "1", 1));
        let (new, read) = read_new(&read, &grown);
        assert_eq!(paths(&new), ["p=0/a.pin+0+9.json"]);
        // The first object is late: its offset is within a range. The second is new.
        grown.push(object("p=0/a.pin+0+3.json", "1", 1));
        grown.push(object("p=0/a.pin+0+11.json", "1", 1));
        let (new, read) = read_new(&read, &grown);
        assert_eq!(new.len(), 5, "{new:?}");
        assert_eq!(new[0].path.as_ref(), "p=0/a.pin+0+11.json");
        assert!(read_new(&read, &grown).0.is_empty());
        // Replaced by an object of the same size.
        grown[2] = object("p=1/a.pin+1+0.json", "2", 1);
        assert_eq!(paths(&read_new(&read, &grown).0), ["p=1/a.pin+1+0.json"]);
    }

    #[test]
    fn a_deletion_does_not_hide_a_late_object() {
        let first = [object("a.pin+0+0.json", "1", 1), object("a.pin+0+5.json", "1", 1)];
        let (_, read) = read_new(&ReadObjects::default(), &first);
        let second = [object("a.pin+0+3.json", "1", 1), first[1].clone()];
        let (new, read) = read_new(&read, &second);
        assert_eq!(paths(&new), ["a.pin+0+3.json", "a.pin+0+5.json"]);
        assert!(read_new(&read, &second).0.is_empty());
        assert!(read_new(&read, &[]).0.is_empty(), "nothing is left to read");
        assert_eq!(read_new(&read, &[]).1, ReadObjects::default());
    }

    #[test]
    fn an_object_from_the_future_hides_no_later_one() {
        let mut objects: Vec<RawObject> =
            (1..=2_500).map(|time| object(&format!("{time}.json"), "1", time)).collect();
        objects.push(object("future.json", "1", 2_000_000));
        let (_, mut read) = read_new_at(&ReadObjects::default(), &objects, 2_500);
        for time in 2_501..2_510 {
            let name = format!("{time}.json");
            objects.push(object(&name, "1", time));
            let (new, after) = read_new_at(&read, &objects, time);
            assert_eq!(paths(&new), [name]);
            objects[2] = object("3.json", &time.to_string(), 3);
            let (new, after) = read_new_at(&after, &objects, time);
            assert!(paths(&new).contains(&"3.json".to_string()));
            assert!(new.len() as u64 <= MAX_RANGE_OBJECTS, "{} objects", new.len());
            read = after;
        }
        assert!(read_new(&read, &objects).0.is_empty());
    }

    #[test]
    fn an_unreadable_object_is_read_again_alone() {
        let objects: Vec<RawObject> =
            (0..9).map(|offset| object(&format!("a.pin+0+{offset}.json"), "1", 1)).collect();
        let listing = LakeListing::after(ReadObjects::default());
        let all: Vec<RawObject> =
            futures::executor::block_on(listing.select_new(listing_of(&objects)).try_collect())
                .expect("list objects");
        listing.skip_unreadable(&all[4], "x".into(), &Error::failed("denied"));
        assert_eq!(listing.skipped().count, 1);
        let (new, read) = read_new(&listing.read_objects(), &objects);
        assert_eq!(paths(&new), ["a.pin+0+4.json"]);
        assert!(read_new(&read, &objects).0.is_empty());
    }

    #[test]
    fn a_million_objects_take_one_range_per_thousand() {
        let ranges = (0..1_000_000_i64).map(|position| ReadRange {
            first: position,
            last: position,
            fingerprint: Fingerprint::of((u64::MAX / 3).wrapping_mul(position.cast_unsigned())),
        });
        let read = ReadObjects(
            [("p".into(), merged(ranges.collect(), &BTreeSet::new(), i64::MAX))].into(),
        );
        assert_eq!(read.ranges("p").len(), 1_000);
        let text = LakeCheckpoint::text("/lake".into(), &read).expect("encode");
        assert!(text.len() < 64 * 1024, "{} bytes", text.len());
        let parsed = LakeCheckpoint::parse(&text).expect("parse");
        assert_eq!(parsed, LakeCheckpoint { lake: "/lake".into(), objects: Some(read) });
    }

    #[test]
    fn a_checkpoint_of_another_version_names_its_lake() {
        let first = r#"{"lake":"/lake","objects":{"a.pin/p=0+0+":[5,20]}}"#;
        let later = r#"{"format":9,"lake":"/lake","objects":{"a.pin/p=0+0+":[[5,5,1,20]]}}"#;
        for text in [first, later] {
            let parsed = LakeCheckpoint::parse(text).expect("parse");
            assert_eq!(parsed, LakeCheckpoint { lake: "/lake".into(), objects: None });
        }
        assert_eq!(LakeCheckpoint::parse("nonsense"), None);
    }

    /// A change of a lake between two runs, to the object with this number.
    #[derive(Debug, Clone)]
    enum Change {
        Put { number: usize, position: i64 },
        Delete { number: usize },
        Run { unreadable: usize },
    }

    fn change() -> impl Strategy<Value = Change> {
        // Positions repeat, arrive late and leave gaps.
        prop_oneof![
            6 => (0..40usize, 0..60i64)
                .prop_map(|(number, position)| Change::Put { number, position }),
            2 => (0..40usize).prop_map(|number| Change::Delete { number }),
            2 => (0..80usize).prop_map(|unreadable| Change::Run { unreadable }),
        ]
    }

    proptest! {
        /// For any sequence of new, replaced, deleted and unreadable objects.
        #[test]
        fn each_object_is_read_after_its_last_change(
            changes in proptest::collection::vec(change(), 1..120),
            has_offsets: bool,
        ) {
            let mut lake: BTreeMap<usize, RawObject> = BTreeMap::new();
            let mut unread: BTreeSet<usize> = BTreeSet::new();
            let mut read = ReadObjects::default();
            let last_run = Change::Run { unreadable: usize::MAX };
            for (version, change) in changes.into_iter().chain([last_run]).enumerate() {
                match change {
                    Change::Put { number, position } => {
                        // The position of an object with an offset in its name never changes.
                        let name = if has_offsets {
                            format!("p={}/a.pin+0+{number}.json", number % 2)
                        } else {
                            format!("{number}.json")
                        };
                        lake.insert(number, object(&name, &version.to_string(), position));
                        unread.insert(number);
                    }
                    Change::Delete { number } => {
                        lake.remove(&number);
                        unread.remove(&number);
                    }
                    Change::Run { unreadable } => {
                        let objects: Vec<RawObject> = lake.values().cloned().collect();
                        let listing = LakeListing::after(read.clone());
                        let returned: Vec<RawObject> = futures::executor::block_on(
                            listing.select_new(listing_of(&objects)).try_collect(),
                        )
                        .expect("list objects");
                        let paths: BTreeSet<&Path> =
                            returned.iter().map(|object| &object.path).collect();
                        prop_assert_eq!(paths.len(), returned.len(), "an object is read once");
                        for number in std::mem::take(&mut unread) {
                            let object = &lake[&number];
                            prop_assert!(paths.contains(&object.path), "{} is not read", number);
                            if number == unreadable {
                                let error = Error::failed("denied");
                                listing.skip_unreadable(object, String::new(), &error);
                                unread.insert(number);
                            }
                        }
                        read = listing.read_objects();
                        if unread.is_empty() {
                            prop_assert!(read_new(&read, &objects).0.is_empty(), "read again");
                        }
                    }
                }
            }
        }
    }
}

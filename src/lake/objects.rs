//! Finding and reading raw objects, and telling which of them are new.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::Lake;
use super::store::failure;
use crate::config::Config;
use crate::error::{OrFail, Result, on_path};
use crate::record::Kind;

/// Objects of one group that are read at a time from S3.
const CONCURRENT_READS: usize = 16;
/// Folder of the older layout: one object a record, `event-<unique_id>.json`.
const EVENTS: &str = "events";

/// Where the sink puts objects of a topic.
#[derive(Debug, Clone)]
pub struct Layout {
    /// First folder, the sink's `topics.dir`.
    pub topics_dir: String,
    /// The id in front of the topics' names.
    pub id: String,
}

impl Layout {
    /// What the sink is told.
    pub fn of(config: &Config) -> Self {
        let topics_dir = config.connector_properties().get("topics.dir").cloned().unwrap_or_else(|| "topics".into());
        Self { topics_dir, id: config.id.clone() }
    }
}

/// An object of the lake that holds records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawObject {
    pub path: Path,
    pub size_bytes: u64,
    /// It holds one record, however many lines that has.
    pub is_one_record: bool,
    /// Objects of one lane grow in one direction: those of one partition in one folder.
    lane: String,
    /// Where in its lane it stands: its first offset, or when it was written, in milliseconds.
    position: i64,
}

/// All objects of one kind of record, in the order of their names.
///
/// # Errors
/// The lake cannot be listed.
pub async fn list_objects(lake: &Lake, layout: &Layout, kind: Kind) -> Result<Vec<RawObject>> {
    let topic = format!("{}.{}", layout.id, kind.name());
    let mut objects = list(lake, &format!("{}/{topic}", layout.topics_dir), &topic).await?;
    if kind == Kind::Pin {
        // The smaller builds of this pipeline post pins only, and keep each in an object of its own.
        objects.extend(list(lake, EVENTS, EVENTS).await?);
    }
    objects.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(objects)
}

async fn list(lake: &Lake, folder: &str, topic: &str) -> Result<Vec<RawObject>> {
    let prefix = lake.path(folder);
    let listed = lake.store.list(Some(&prefix)).try_filter_map(|meta| {
        let relative = meta.location.prefix_match(&prefix).map(|parts| parts.map(|part| part.as_ref().to_string()).collect::<Vec<_>>());
        let written_ms = meta.last_modified.timestamp_millis();
        let object = relative.and_then(|parts| raw_object(topic, &parts, meta.location, meta.size, written_ms));
        async move { Ok(object) }
    });
    listed.try_collect().await.map_err(|error| failure(format!("cannot list the lake `{}`", lake.url), error))
}

/// What an object's name says; `None`: anything else is not the sink's, such as a file half uploaded.
fn raw_object(topic: &str, parts: &[String], path: Path, size_bytes: u64, written_ms: i64) -> Option<RawObject> {
    let (name, folders) = parts.split_last()?;
    let stem = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".json")?;
    let is_event = topic == EVENTS;
    if is_event && !stem.starts_with("event-") {
        return None;
    }
    // <topic>+<partition>+<offset>, with whatever stands between them in this sink.
    let numbers = stem.strip_prefix(topic).and_then(|rest| {
        let offset: String = rest.chars().rev().take_while(char::is_ascii_digit).collect::<Vec<_>>().into_iter().rev().collect();
        Some((rest.strip_suffix(&offset)?.to_string(), offset.parse::<i64>().ok()?))
    });
    let (lane, position) = match numbers {
        Some((partition, offset)) if !is_event => (format!("{topic}/{}{partition}", folders.join("/")), offset),
        _ => (format!("{topic}/{}", folders.join("/")), written_ms),
    };
    Some(RawObject { path, size_bytes, is_one_record: is_event, lane, position })
}

/// Which objects have been taken: how far each lane, and how many bytes that were.
///
/// An object that came late, was written again or went away changes the bytes below the
/// position; its lane is then read anew, which does no harm, since repeated records count once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken(BTreeMap<String, (i64, u64)>);

impl Taken {
    /// The objects that are not taken yet, and what is taken after they are.
    pub fn plan(&self, objects: Vec<RawObject>) -> (Vec<RawObject>, Taken) {
        let mut lanes: BTreeMap<String, Vec<RawObject>> = BTreeMap::new();
        for object in objects {
            lanes.entry(object.lane.clone()).or_default().push(object);
        }
        let mut after = self.clone();
        let mut fresh = Vec::new();
        for (lane, objects) in lanes {
            let (position, bytes) = self.0.get(&lane).copied().unwrap_or((i64::MIN, 0));
            let last = objects.iter().map(|object| object.position).max().unwrap_or(position);
            let all: u64 = objects.iter().map(|object| object.size_bytes).sum();
            let below: u64 = objects.iter().filter(|object| object.position <= position).map(|object| object.size_bytes).sum();
            fresh.extend(objects.into_iter().filter(|object| below != bytes || object.position > position));
            after.0.insert(lane, (last, all));
        }
        fresh.sort_by(|a, b| a.path.cmp(&b.path));
        (fresh, after)
    }
}

/// The contents of objects, in their order.
///
/// # Errors
/// One of them cannot be read.
pub async fn read_objects(lake: &Lake, objects: &[RawObject]) -> Result<Vec<Bytes>> {
    if let Some(files) = &lake.files {
        // One trip to a thread that may block for the whole group, not two for each object.
        let paths = objects.iter().map(|object| files.path_to_filesystem(&object.path));
        let paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().or_fail(|| format!("cannot read the lake `{}`", lake.url))?;
        let read = tokio::task::spawn_blocking(move || {
            let contents = paths.iter().map(|path| std::fs::read(path).map(Bytes::from).map_err(|error| on_path("read", path, error)));
            contents.collect::<Result<Vec<_>>>()
        });
        return read.await.or_fail(|| "reading the lake was interrupted")?;
    }
    let read = |object: RawObject| async move {
        let action = || format!("cannot read `{}` of the lake `{}`", object.path, lake.url);
        let got = lake.store.get(&object.path).await.map_err(|error| failure(action(), error))?;
        got.bytes().await.map_err(|error| failure(action(), error))
    };
    futures::stream::iter(objects.to_vec()).map(read).buffered(CONCURRENT_READS).try_collect().await
}

/// The records of an object, unpacked where its name says that it is packed.
///
/// # Errors
/// It is damaged.
pub fn unpack(path: &Path, bytes: Bytes) -> std::io::Result<Bytes> {
    if !path.as_ref().ends_with(".gz") {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut unpacked)?;
    Ok(unpacked.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, size_bytes: u64) -> RawObject {
        let parts: Vec<String> = name.split('/').map(String::from).collect();
        raw_object("a.pin", &parts, Path::from(name), size_bytes, 77).expect("an object of the sink")
    }

    fn names(objects: &[RawObject]) -> Vec<&str> {
        objects.iter().map(|object| object.path.as_ref()).collect()
    }

    #[test]
    fn names_tell_lane_and_offset() {
        let found = object("partition=0/a.pin+0+0000001000.json", 5);
        assert_eq!((found.lane.as_str(), found.position), ("a.pin/partition=0+0+", 1000));
        let found = object("country=Peru/a.pin+2+0000000007.json.gz", 5);
        assert_eq!((found.lane.as_str(), found.position), ("a.pin/country=Peru+2+", 7));
        assert_eq!(object("by-hand.json", 5).position, 77);
        assert_eq!(raw_object("a.pin", &["x.json.part".into()], Path::from("x"), 1, 1), None);
        assert_eq!(raw_object(EVENTS, &["notes.json".into()], Path::from("x"), 1, 1), None);
    }

    #[test]
    fn only_what_is_new_is_read_and_a_lane_that_changed_below_is_read_anew() {
        let first = vec![object("p=0/a.pin+0+0.json", 10), object("p=0/a.pin+0+5.json", 10), object("p=1/a.pin+1+0.json", 10)];
        let (fresh, taken) = Taken::default().plan(first.clone());
        assert_eq!(fresh.len(), 3);
        assert_eq!(taken.plan(first.clone()).0, [], "nothing is read twice");
        let mut grown = first.clone();
        grown.push(object("p=0/a.pin+0+9.json", 3));
        let (fresh, taken) = taken.plan(grown.clone());
        assert_eq!(names(&fresh), ["p=0/a.pin+0+9.json"]);
        // Late: its offset lies before what was taken of its partition.
        grown.push(object("p=0/a.pin+0+3.json", 2));
        let (fresh, taken) = taken.plan(grown.clone());
        assert_eq!(fresh.len(), 4, "{fresh:?}");
        assert_eq!(taken.plan(grown.clone()).0, []);
        // Written again, longer than it was.
        grown[2].size_bytes = 11;
        assert_eq!(names(&taken.plan(grown).0), ["p=1/a.pin+1+0.json"]);
    }
}

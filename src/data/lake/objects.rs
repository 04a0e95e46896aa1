//! Lists raw objects of the lake.

use std::future::ready;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use crate::base::checksum::fingerprint;
use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::data::lake::compression::Compression;
use crate::data::lake::format::object_format::ObjectFormat;
use crate::data::lake::format::{extension, of_object};
use crate::data::lake::listing::{Entry, ListedObject, SkippedObject, list};
use crate::data::storage::Lake;

/// Number of objects that are sorted at a time.
const ORDERED_OBJECTS: usize = 32_768;
/// Folder of the older layout with one record per object, `event-<unique_id>.json`.
const EVENTS: &str = "events";

/// Layout of the lake: where the sink connector writes the objects of a topic.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Top-level folder, `topics.dir` of the sink connector.
    pub topics_dir: String,
    /// Prefix of the topic names: the id of the pipeline.
    pub id: String,
}

impl Layout {
    /// Layout of the configured sink connector. `topics.dir` defaults to `topics`.
    pub fn of(config: &Config) -> Self {
        let topics_dir = config
            .connector_properties()
            .get("topics.dir")
            .cloned()
            .unwrap_or_else(|| "topics".into());
        Self { topics_dir, id: config.id.clone() }
    }
}

/// An object of the lake that contains records.
#[derive(Debug, Clone)]
pub struct RawObject {
    pub path: Path,
    pub size_bytes: u64,
    pub format: &'static dyn ObjectFormat,
    pub compression: Compression,
    /// The object is one record, which may have several lines.
    pub is_one_record: bool,
    /// Group of objects whose positions only increase: one Kafka partition in one folder.
    pub partition: String,
    /// Position in the partition: the first offset, or the modification time in milliseconds since
    /// the epoch.
    pub position: i64,
    /// Hash of path, size and version. It changes with the content of the object.
    pub identity: u64,
}

/// Objects of a listing in progress.
pub type Objects = BoxStream<'static, Result<RawObject>>;

/// What a listing of a record kind finds.
#[derive(Debug, Clone)]
pub enum Found {
    Object(RawObject),
    Skipped(SkippedObject),
}

/// A listing of a record kind in progress.
pub type Listing = BoxStream<'static, Result<Found>>;

/// Lists all objects of one record kind, and those that are skipped because of their names.
///
/// # Errors
/// The lake cannot be listed.
pub fn list_kind(lake: &Lake, layout: &Layout, kind: Kind) -> Listing {
    let topic = format!("{}.{}", layout.id, kind.name());
    let mut listing = list_topic(lake, &format!("{}/{topic}", layout.topics_dir), topic);
    if kind == Kind::Pin {
        // Simpler versions of this pipeline store only pins, one per object.
        listing = listing.chain(list_topic(lake, EVENTS, EVENTS.into())).boxed();
    }
    listing
}

/// Lists all objects of one record kind.
///
/// # Errors
/// The lake cannot be listed.
pub fn list_objects(lake: &Lake, layout: &Layout, kind: Kind) -> Objects {
    let objects = list_kind(lake, layout, kind).try_filter_map(|found| {
        ready(Ok(match found {
            Found::Object(object) => Some(object),
            Found::Skipped(_) => None,
        }))
    });
    objects.boxed()
}

/// Sorts objects of a folder by path, 32,768 at a time. A bucket lists its objects in this order
/// already, a folder in no particular order.
pub fn ordered(lake: &Lake, objects: Objects) -> Objects {
    if lake.files.is_none() {
        return objects;
    }
    let ordered =
        objects.try_chunks(ORDERED_OBJECTS).map_err(|error| error.1).map_ok(|mut chunk| {
            chunk.sort_by(|a, b| a.path.cmp(&b.path));
            futures::stream::iter(chunk.into_iter().map(Ok::<_, Error>))
        });
    ordered.try_flatten().boxed()
}

/// Counts the objects of each kind, in the order of [`Kind::ALL`].
///
/// # Errors
/// The lake cannot be listed.
pub async fn count_objects(lake: &Lake, layout: &Layout) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for kind in Kind::ALL {
        counts.push(
            list_objects(lake, layout, kind).try_fold(0, |count, _| ready(Ok(count + 1))).await?,
        );
    }
    Ok(counts)
}

fn list_topic(lake: &Lake, folder: &str, topic: String) -> Listing {
    let path_prefix = lake.path_prefix();
    let listing = list(lake, folder).try_filter_map(move |entry| {
        ready(Ok(match entry {
            Entry::Object(object) => raw_object(&topic, object, path_prefix),
            Entry::Skipped(skipped) => Some(Found::Skipped(skipped)),
        }))
    });
    listing.boxed()
}

/// Parses the path of a listed object. An object of an unknown format is skipped, under its path
/// after `path_prefix`. Returns `None` for an object in the folder of events that is not an event.
pub fn raw_object(topic: &str, listed: ListedObject, path_prefix: &str) -> Option<Found> {
    let ListedObject { path, parts, size_bytes, written_ms, version } = listed;
    let (name, folders) = parts.split_last()?;
    let is_event = topic == EVENTS;
    if is_event && !name.starts_with("event-") {
        return None;
    }
    let Some((stem, format, compression)) = of_object(name) else {
        let reason = match extension(name) {
            "" => "its name has no extension".to_string(),
            extension => format!("the format or compression `{extension}` is not supported"),
        };
        return Some(Found::Skipped(SkippedObject {
            object: format!("{path_prefix}{path}"),
            reason,
        }));
    };
    // `<topic>+<partition>+<offset>`; the separator is `file.delim` of the sink connector.
    let numbers = stem.strip_prefix(topic).and_then(|rest| {
        let offset: String = rest
            .chars()
            .rev()
            .take_while(char::is_ascii_digit)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        Some((rest.strip_suffix(&offset)?.to_string(), offset.parse::<i64>().ok()?))
    });
    let (partition, position) = match numbers {
        Some((partition, offset)) if !is_event => {
            (format!("{topic}/{}{partition}", folders.join("/")), offset)
        }
        _ => (format!("{topic}/{}", folders.join("/")), written_ms),
    };
    // The hashed text is unambiguous, because a path contains no line break.
    let identity = fingerprint(format!("{path}\n{size_bytes}\n{version}").as_bytes());
    Some(Found::Object(RawObject {
        path,
        size_bytes,
        format,
        compression,
        is_one_record: is_event,
        partition,
        position,
        identity,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(topic: &str, name: &str, version: &str) -> Option<Found> {
        let listed = ListedObject {
            path: Path::from(name),
            parts: name.split('/').map(String::from).collect(),
            size_bytes: 5,
            written_ms: 77,
            version: version.into(),
        };
        raw_object(topic, listed, "/")
    }

    fn object(name: &str) -> RawObject {
        match find("a.pin", name, "1") {
            Some(Found::Object(object)) => object,
            other => panic!("expected an object, got {other:?}"),
        }
    }

    #[test]
    fn parses_partition_and_offset_from_the_name() {
        let with_partition = object("partition=0/a.pin+0+0000001000.json");
        assert_eq!(
            (with_partition.partition.as_str(), with_partition.position),
            ("a.pin/partition=0+0+", 1000)
        );
        let with_field = object("country=Peru/a.pin+2+0000000007.json.gz");
        assert_eq!(
            (with_field.partition.as_str(), with_field.position),
            ("a.pin/country=Peru+2+", 7)
        );
        assert_eq!(object("by-hand.json").position, 77);
        assert!(find(EVENTS, "notes.txt", "1").is_none());
    }

    #[test]
    fn an_object_of_an_unknown_format_is_skipped() {
        for (name, reason) in [("x.json.part", "`.part` is not"), ("notes", "has no extension")] {
            let Some(Found::Skipped(skipped)) = find("a.pin", name, "1") else {
                panic!("{name} is skipped");
            };
            assert_eq!(skipped.object, format!("/{name}"));
            assert!(skipped.reason.contains(reason), "{skipped:?}");
        }
    }

    #[test]
    fn the_identity_differs_by_name_and_version() {
        let Some(Found::Object(changed)) = find("a.pin", "by-hand.json", "2") else {
            panic!("an object");
        };
        let same = object("by-hand.json");
        assert_eq!(same.identity, object("by-hand.json").identity);
        assert_ne!(same.identity, changed.identity);
        assert_ne!(same.identity, object("by-hand-2.json").identity);
    }
}

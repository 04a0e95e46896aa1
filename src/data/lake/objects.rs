//! Lists raw objects of the lake.

use std::future::ready;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::data::lake::compression::Compression;
use crate::data::lake::format::object_format::ObjectFormat;
use crate::data::lake::format::of_object;
use crate::data::storage::Lake;
use crate::data::storage::failure;

/// Number of objects that are sorted at a time.
const ORDERED_OBJECTS: usize = 32_768;
/// Folder of the older layout with one record per object, `event-<unique_id>.json`.
const EVENTS: &str = "events";

/// Layout of the lake: where the sink connector writes the objects of a topic.
#[derive(Debug, Clone)]
pub struct Layout {
    /// First folder, `topics.dir` of the sink connector.
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
    /// 1970.
    pub position: i64,
}

/// Objects of a listing in progress.
pub type Objects = BoxStream<'static, Result<RawObject>>;

/// Lists all objects of one record kind.
///
/// # Errors
/// The lake cannot be listed.
pub fn list_objects(lake: &Lake, layout: &Layout, kind: Kind) -> Objects {
    let topic = format!("{}.{}", layout.id, kind.name());
    let mut objects = list(lake, &format!("{}/{topic}", layout.topics_dir), topic);
    if kind == Kind::Pin {
        // Smaller builds of this pipeline post only pins, one per object.
        objects = objects.chain(list(lake, EVENTS, EVENTS.into())).boxed();
    }
    objects
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

fn list(lake: &Lake, folder: &str, topic: String) -> Objects {
    let (prefix, url) = (lake.path(folder), lake.url.clone());
    let listed = lake
        .store
        .list(Some(&prefix))
        .map_err(move |error| failure(format!("cannot list the lake `{url}`"), error));
    let objects = listed.try_filter_map(move |meta| {
        let relative = meta
            .location
            .prefix_match(&prefix)
            .map(|parts| parts.map(|part| part.as_ref().to_string()).collect::<Vec<_>>());
        let written_ms = meta.last_modified.timestamp_millis();
        ready(Ok(relative
            .and_then(|parts| raw_object(&topic, &parts, meta.location, meta.size, written_ms))))
    });
    objects.boxed()
}

/// Parses the path of an object. Returns `None` if the sink connector did not write it, such as a
/// partially uploaded file.
pub fn raw_object(
    topic: &str,
    parts: &[String],
    path: Path,
    size_bytes: u64,
    written_ms: i64,
) -> Option<RawObject> {
    let (name, folders) = parts.split_last()?;
    let (stem, format, compression) = of_object(name)?;
    let is_event = topic == EVENTS;
    if is_event && !stem.starts_with("event-") {
        return None;
    }
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
    Some(RawObject {
        path,
        size_bytes,
        format,
        compression,
        is_one_record: is_event,
        partition,
        position,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, size_bytes: u64) -> RawObject {
        let parts: Vec<String> = name.split('/').map(String::from).collect();
        raw_object("a.pin", &parts, Path::from(name), size_bytes, 77)
            .expect("object of the sink connector")
    }

    #[test]
    fn parses_partition_and_offset_from_the_name() {
        let with_partition = object("partition=0/a.pin+0+0000001000.json", 5);
        assert_eq!(
            (with_partition.partition.as_str(), with_partition.position),
            ("a.pin/partition=0+0+", 1000)
        );
        let with_field = object("country=Peru/a.pin+2+0000000007.json.gz", 5);
        assert_eq!(
            (with_field.partition.as_str(), with_field.position),
            ("a.pin/country=Peru+2+", 7)
        );
        assert_eq!(object("by-hand.json", 5).position, 77);
        assert!(raw_object("a.pin", &["x.json.part".into()], Path::from("x"), 1, 1).is_none());
        assert!(raw_object(EVENTS, &["notes.json".into()], Path::from("x"), 1, 1).is_none());
    }
}

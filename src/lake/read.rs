//! Finding and reading raw objects.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::Lake;
use super::store::failure;
use crate::error::Result;
use crate::record::Kind;

/// Where the sink puts objects of a topic.
#[derive(Debug, Clone)]
pub struct Layout {
    /// First folder, the sink's `topics.dir`.
    pub topics_dir: String,
    /// The id in front of the topics' names.
    pub id: String,
}

/// An object of the lake that holds records.
#[derive(Debug, Clone)]
pub struct RawObject {
    pub path: Path,
    pub size_bytes: u64,
}

/// All objects of one kind of record, in the order of their names.
///
/// # Errors
/// The lake cannot be listed.
pub async fn list_objects(lake: &Lake, layout: &Layout, kind: Kind) -> Result<Vec<RawObject>> {
    let folder = lake.path(&format!("{}/{}.{}", layout.topics_dir, layout.id, kind.name()));
    let listed = lake.store.list(Some(&folder)).try_filter_map(|meta| async move {
        // Anything else in there is not the sink's, such as a file half uploaded.
        let is_data = meta.location.as_ref().ends_with(".json") || meta.location.as_ref().ends_with(".json.gz");
        Ok(is_data.then_some(RawObject { path: meta.location, size_bytes: meta.size }))
    });
    let mut objects: Vec<RawObject> =
        listed.try_collect().await.map_err(|error| failure(format!("cannot list the lake `{}`", lake.url), error))?;
    objects.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(objects)
}

/// An object as it lies there.
///
/// # Errors
/// The object cannot be read.
pub async fn read_object(lake: &Lake, path: &Path) -> Result<Bytes> {
    let action = || format!("cannot read `{path}` of the lake `{}`", lake.url);
    let got = lake.store.get(path).await.map_err(|error| failure(action(), error))?;
    got.bytes().await.map_err(|error| failure(action(), error))
}

/// The records of an object, unpacked where its name says that it is packed.
///
/// # Errors
/// It is damaged.
pub fn unpack(name: &str, bytes: Bytes) -> std::io::Result<Bytes> {
    if !name.ends_with(".gz") {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut unpacked)?;
    Ok(unpacked.into())
}

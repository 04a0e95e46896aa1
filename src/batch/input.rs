//! Reading the whole lake of one kind of record, many objects at a time.

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};

use crate::error::{OrFail, Result};
use crate::lake::{Decoder, KEPT_REJECTS, Lake, Layout, RawObject, Reject, list_objects, read_object, unpack};
use crate::output::Progress;
use crate::record::Kind;

/// Objects read at a time.
const CONCURRENT_READS: usize = 16;
/// Objects are decoded together until they make so many bytes: small ones are many.
const GROUP_BYTES: u64 = 4 * 1024 * 1024;
/// Objects in one group at most.
const GROUP_OBJECTS: usize = 512;

/// What the lake holds of one kind.
pub struct Input {
    pub objects: u64,
    pub records: u64,
    pub rejected: u64,
    /// The first of the records that did not fit.
    pub rejects: Vec<Reject>,
    pub batches: Vec<RecordBatch>,
}

fn groups(objects: Vec<RawObject>) -> Vec<Vec<RawObject>> {
    let mut groups: Vec<Vec<RawObject>> = Vec::new();
    let mut bytes = 0;
    for object in objects {
        match groups.last_mut() {
            Some(group) if bytes + object.size_bytes <= GROUP_BYTES && group.len() < GROUP_OBJECTS => group.push(object.clone()),
            _ => {
                bytes = 0;
                groups.push(vec![object.clone()]);
            }
        }
        bytes += object.size_bytes;
    }
    groups
}

/// Reads and decodes all objects of a kind.
///
/// # Errors
/// The lake cannot be listed or read. Records that do not fit are in the rejects instead.
pub async fn read(lake: &Lake, layout: &Layout, kind: Kind, progress: &Progress) -> Result<Input> {
    let objects = list_objects(lake, layout, kind).await?;
    let count = objects.len() as u64;
    let decoded = futures::stream::iter(groups(objects)).map(|group| async move {
        let mut contents = Vec::with_capacity(group.len());
        let mut reads = futures::stream::iter(&group)
            .map(|object| async move { read_object(lake, &object.path).await.map(|bytes| (object.path.to_string(), bytes)) })
            .buffered(CONCURRENT_READS);
        while let Some(content) = reads.try_next().await? {
            contents.push(content);
        }
        progress.add(group.len() as u64);
        let decoding = tokio::task::spawn_blocking(move || {
            let mut decoder = Decoder::new(kind);
            for (path, bytes) in contents {
                match unpack(&path, bytes) {
                    Ok(records) => decoder.object(&path, &records)?,
                    Err(error) => decoder.refuse(&path, format!("broken gzip: {error}")),
                }
            }
            let batches = decoder.finish()?;
            Ok((decoder, batches))
        });
        decoding.await.or_fail(|| "decoding was interrupted")?
    });
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let decoded: Vec<(Decoder, Vec<RecordBatch>)> = decoded.buffered(cores).try_collect().await?;
    let mut input = Input { objects: count, records: 0, rejected: 0, rejects: Vec::new(), batches: Vec::new() };
    for (decoder, batches) in decoded {
        input.records += decoder.records;
        input.rejected += decoder.rejected;
        let room = KEPT_REJECTS.saturating_sub(input.rejects.len());
        input.rejects.extend(decoder.rejects.into_iter().take(room));
        input.batches.extend(batches);
    }
    Ok(input)
}

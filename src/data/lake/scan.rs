//! Reads raw objects: small ones in groups, large ones chunk by chunk.

use std::future::Future;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::sync::mpsc;

use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::data::lake::decode::MAX_RECORD_BYTES;
use crate::data::lake::line_splitter::{COMPRESSED_PIECE_BYTES, LineChunk, LineSplitter};
use crate::data::lake::objects::{Objects, RawObject};
use crate::data::storage::Lake;
use crate::data::storage::failure;

/// Concurrent reads from S3 per group of objects.
const CONCURRENT_READS: usize = 16;
/// Maximum number of objects in a group.
const MAX_GROUP_OBJECTS: usize = 2_048;
/// Bytes per read of a large file.
const CHUNK_BYTES: usize = 256 * 1024;

/// Unit of decoding.
pub enum ScanChunk {
    /// Complete objects, as stored.
    Objects(Vec<(RawObject, Bytes)>),
    /// A decompressed part of a large object.
    LineChunk { object: RawObject, slice: LineChunk },
    /// The end of a large object.
    End,
}

/// Chunks of a scan in progress.
pub type ScanChunks = BoxStream<'static, Result<ScanChunk>>;

impl RawObject {
    /// Whether the object can be decoded part by part.
    fn can_be_split(&self) -> bool {
        self.format.has_lines() && !self.is_one_record
    }

    /// Estimated size of the records after decompression, in bytes.
    fn decompressed_bytes(&self) -> u64 {
        self.size_bytes.saturating_mul(self.format.typical_ratio(self.compression))
    }
}

/// Sizes of the chunks of a scan, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct ChunkSize {
    /// Target size: small objects are grouped up to it, large ones are split at it.
    pub bytes: u64,
    /// Objects above this size are split, which costs one more copy of their bytes.
    pub max_whole_bytes: u64,
}

/// Reads objects while they are listed, and prefetches chunks ahead of decoding.
pub fn read_objects(lake: &Lake, objects: Objects, size: ChunkSize) -> ScanChunks {
    let lake = lake.clone();
    let prefetched_groups = if lake.files.is_some() { 2 } else { 6 };
    let read = move |group: Result<Vec<RawObject>>| {
        let lake = lake.clone();
        // A separate task reads even while the stream is not polled.
        let task = group.map(|group| tokio::spawn(read_group(lake, group, size)));
        async move { task?.await.context(interrupted)? }
    };
    groups(objects, size.bytes).map(read).buffered(prefetched_groups).try_flatten().boxed()
}

/// Message for a scan that ended early.
pub fn interrupted() -> &'static str {
    "reading the lake was interrupted"
}

/// Groups consecutive small objects. A large object is a group of its own.
fn groups(objects: Objects, chunk_bytes: u64) -> BoxStream<'static, Result<Vec<RawObject>>> {
    let next_group = move |mut objects: std::pin::Pin<Box<stream::Peekable<Objects>>>| async move {
        let mut group: Vec<RawObject> = Vec::new();
        let mut bytes = 0;
        while let Some(Ok(next)) = objects.as_mut().peek().await {
            if !group.is_empty()
                && (bytes + next.decompressed_bytes() > chunk_bytes
                    || group.len() == MAX_GROUP_OBJECTS)
            {
                break;
            }
            bytes += next.decompressed_bytes();
            group.extend(objects.try_next().await?);
        }
        if group.is_empty() {
            // The listing has ended or failed.
            objects.try_next().await?;
            return Ok(None);
        }
        Ok(Some((group, objects)))
    };
    stream::try_unfold(Box::pin(objects.peekable()), next_group).boxed()
}

async fn read_group(lake: Lake, group: Vec<RawObject>, size: ChunkSize) -> Result<ScanChunks> {
    match &group[..] {
        [object] if object.is_one_record && object.size_bytes > MAX_RECORD_BYTES as u64 => {
            let slice = LineChunk::Refused {
                line: 1,
                reason: crate::data::lake::decode::TOO_LONG.into(),
                raw: Bytes::new(),
            };
            let chunks = [ScanChunk::LineChunk { object: object.clone(), slice }, ScanChunk::End];
            Ok(stream::iter(chunks.map(Ok)).boxed())
        }
        [object] if object.can_be_split() && object.decompressed_bytes() > size.max_whole_bytes => {
            read_large(lake, object.clone(), size.bytes).await
        }
        _ => {
            let contents = read_whole(&lake, &group).await?;
            let chunk = ScanChunk::Objects(group.into_iter().zip(contents).collect());
            Ok(stream::iter([Ok(chunk)]).boxed())
        }
    }
}

/// Reads complete objects and returns their contents in the same order.
async fn read_whole(lake: &Lake, objects: &[RawObject]) -> Result<Vec<Bytes>> {
    if let Some(files) = &lake.files {
        // One blocking task for the group instead of two for each object.
        let paths = objects.iter().map(|object| files.path_to_filesystem(&object.path));
        let paths: Vec<PathBuf> = paths
            .collect::<Result<_, _>>()
            .context(|| format!("cannot read the lake `{}`", lake.url))?;
        let task = tokio::task::spawn_blocking(move || {
            let contents = paths.iter().map(|path| {
                std::fs::read(path).map(Bytes::from).map_err(|error| io_error("read", path, error))
            });
            contents.collect::<Result<Vec<_>>>()
        });
        return task.await.context(interrupted)?;
    }
    let read = |object: RawObject| async move {
        let response = lake
            .store
            .get(&object.path)
            .await
            .map_err(|error| cannot_read(lake, &object.path, error))?;
        response.bytes().await.map_err(|error| cannot_read(lake, &object.path, error))
    };
    stream::iter(objects.to_vec()).map(read).buffered(CONCURRENT_READS).try_collect().await
}

fn cannot_read(lake: &Lake, path: &Path, error: object_store::Error) -> Error {
    failure(format!("cannot read `{path}` of the lake `{}`", lake.url), error)
}

/// Reads one large object chunk by chunk, in parallel with decoding.
async fn read_large(lake: Lake, object: RawObject, slice_bytes: u64) -> Result<ScanChunks> {
    let line_splitter = LineSplitter::new(usize::try_from(slice_bytes).unwrap_or(usize::MAX));
    let (slices, received) = mpsc::channel(1);
    let path = object.path.clone();
    let Some(files) = &lake.files else {
        let response =
            lake.store.get(&path).await.map_err(|error| cannot_read(&lake, &path, error))?;
        let task = tokio::spawn(async move {
            let chunks = response.into_stream().map_err(|error| cannot_read(&lake, &path, error));
            split_lines(chunks, line_splitter, &slices).await
        });
        return Ok(line_chunks(object, received, task));
    };
    let path = files
        .path_to_filesystem(&path)
        .context(|| format!("cannot read the lake `{}`", lake.url))?;
    let mut file = std::fs::File::open(&path).map_err(|error| io_error("read", &path, error))?;
    let task = tokio::task::spawn_blocking(move || {
        let chunks = std::iter::from_fn(move || {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            match file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
                Ok(0) => None,
                Ok(_) => Some(Ok(Bytes::from(chunk))),
                Err(error) => Some(Err(io_error("read", &path, error))),
            }
        });
        // This thread may block.
        futures::executor::block_on(split_lines(stream::iter(chunks), line_splitter, &slices))
    });
    Ok(line_chunks(object, received, task))
}

/// Splits the chunks of an object into lines and sends them, until the object ends or the receiver
/// is dropped.
async fn split_lines(
    chunks: impl futures::Stream<Item = Result<Bytes>>,
    mut line_splitter: LineSplitter,
    slices: &mpsc::Sender<LineChunk>,
) -> Result<()> {
    let mut chunks = std::pin::pin!(chunks);
    while let Some(chunk) = chunks.try_next().await? {
        // Whether the bytes are compressed is known only to the splitter.
        for piece in chunk.chunks(COMPRESSED_PIECE_BYTES) {
            for slice in line_splitter.push(piece) {
                if slices.send(slice).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    for slice in line_splitter.finish() {
        // Fails only if the receiver is dropped, which needs no more chunks.
        let _ = slices.send(slice).await;
    }
    Ok(())
}

/// Returns the received chunks, followed by the end of the object or the error of the reading task.
fn line_chunks(
    object: RawObject,
    received: mpsc::Receiver<LineChunk>,
    task: impl Future<Output = Result<Result<()>, tokio::task::JoinError>> + Send + 'static,
) -> ScanChunks {
    let slices = stream::unfold(received, move |mut received| {
        let object = object.clone();
        async move {
            received
                .recv()
                .await
                .map(|slice| (Ok(ScanChunk::LineChunk { object, slice }), received))
        }
    });
    let end = stream::once(async move {
        task.await.context(interrupted)??;
        Ok(ScanChunk::End)
    });
    slices.chain(end).boxed()
}

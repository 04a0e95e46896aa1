//! Reads raw objects: small ones in groups, large ones chunk by chunk.

use std::future::ready;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::data::lake::checkpoint::LakeListing;
use crate::data::lake::decode::MAX_RECORD_BYTES;
use crate::data::lake::line_splitter::{COMPRESSED_PIECE_BYTES, LineChunk, LineSplitter};
use crate::data::lake::objects::{Objects, RawObject};
use crate::data::storage::{Lake, failure, is_of_object};

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
    /// Returns whether the object can be decoded chunk by chunk.
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

/// Hint for an object that cannot be read.
const UNREADABLE_HINT: &str = "restore the object or grant read permission on it, then re-run the \
     command; `batch.on_unreadable = \"skip\"` answers without such objects";

/// Why an object cannot be read.
struct ReadFailure {
    error: Box<Error>,
    /// The error concerns this object only, not the lake or the connection.
    is_of_object: bool,
}

/// What happens to objects that cannot be read.
#[derive(Debug, Clone)]
pub enum OnUnreadableObject {
    /// The scan fails.
    Fail,
    /// The object is recorded as skipped.
    Skip(LakeListing),
}

impl OnUnreadableObject {
    /// Records an object that cannot be read.
    ///
    /// # Errors
    /// Unreadable objects must not be skipped, or the error does not concern this object only.
    fn handle(&self, lake: &Lake, object: &RawObject, failure: ReadFailure) -> Result<()> {
        match self {
            Self::Skip(listing) if failure.is_of_object => {
                let name = format!("{}{}", lake.path_prefix(), object.path);
                listing.skip_unreadable(object, name, &failure.error);
                Ok(())
            }
            _ if failure.is_of_object => Err(failure.error.hint(UNREADABLE_HINT)),
            _ => Err(*failure.error),
        }
    }
}

/// Reads objects while they are listed, and prefetches chunks ahead of decoding.
pub fn read_objects(
    lake: &Lake,
    objects: Objects,
    size: ChunkSize,
    on_unreadable: &OnUnreadableObject,
) -> ScanChunks {
    let (lake, on_unreadable) = (lake.clone(), on_unreadable.clone());
    let prefetched_groups = if lake.files.is_some() { 2 } else { 6 };
    let read = move |group: Result<Vec<RawObject>>| {
        let (lake, on_unreadable) = (lake.clone(), on_unreadable.clone());
        // A separate task reads even while the stream is not polled.
        let task = group.map(|group| tokio::spawn(read_group(lake, group, size, on_unreadable)));
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

async fn read_group(
    lake: Lake,
    group: Vec<RawObject>,
    size: ChunkSize,
    on_unreadable: OnUnreadableObject,
) -> Result<ScanChunks> {
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
            read_large(lake, object.clone(), size.bytes, on_unreadable).await
        }
        _ => {
            let contents = read_whole(&lake, &group).await?;
            let mut objects = Vec::with_capacity(group.len());
            for (object, contents) in group.into_iter().zip(contents) {
                match contents {
                    Ok(contents) => objects.push((object, contents)),
                    Err(failure) => on_unreadable.handle(&lake, &object, failure)?,
                }
            }
            Ok(stream::iter([Ok(ScanChunk::Objects(objects))]).boxed())
        }
    }
}

/// Reads complete objects and returns their contents in the same order.
async fn read_whole(lake: &Lake, objects: &[RawObject]) -> Result<Vec<Result<Bytes, ReadFailure>>> {
    if let Some(files) = &lake.files {
        // One blocking task for the group instead of two for each object.
        let paths = objects.iter().map(|object| files.path_to_filesystem(&object.path));
        let paths: Vec<PathBuf> = paths
            .collect::<Result<_, _>>()
            .context(|| format!("cannot read the lake `{}`", lake.url))?;
        let task = tokio::task::spawn_blocking(move || {
            let contents = paths.iter().map(|path| {
                std::fs::read(path).map(Bytes::from).map_err(|error| file_failure(path, error))
            });
            contents.collect::<Vec<_>>()
        });
        return task.await.context(interrupted);
    }
    let read = |object: RawObject| async move {
        let response = lake.store.get(&object.path).await;
        let contents = match response {
            Ok(response) => response.bytes().await,
            Err(error) => Err(error),
        };
        contents.map_err(|error| object_failure(lake, &object.path, error))
    };
    Ok(stream::iter(objects.to_vec()).map(read).buffered(CONCURRENT_READS).collect().await)
}

fn object_failure(lake: &Lake, path: &Path, error: object_store::Error) -> ReadFailure {
    let is_of_object = is_of_object(&error);
    let action = format!("cannot read `{path}` of the lake `{}`", lake.url);
    ReadFailure { error: Box::new(failure(action, error)), is_of_object }
}

fn file_failure(path: &std::path::Path, error: std::io::Error) -> ReadFailure {
    ReadFailure { error: Box::new(io_error("read", path, error)), is_of_object: true }
}

/// Reads one large object chunk by chunk, in parallel with decoding. Records before the damage of
/// an object are kept if the object is skipped.
async fn read_large(
    lake: Lake,
    object: RawObject,
    slice_bytes: u64,
    on_unreadable: OnUnreadableObject,
) -> Result<ScanChunks> {
    let line_splitter = LineSplitter::new(usize::try_from(slice_bytes).unwrap_or(usize::MAX));
    let (slices, received) = mpsc::channel(1);
    let path = object.path.clone();
    let Some(files) = &lake.files else {
        let response = match lake.store.get(&path).await {
            Ok(response) => response,
            Err(error) => {
                let failure = object_failure(&lake, &path, error);
                on_unreadable.handle(&lake, &object, failure)?;
                return Ok(stream::empty().boxed());
            }
        };
        let read_lake = lake.clone();
        let task = tokio::spawn(async move {
            let chunks =
                response.into_stream().map_err(|error| object_failure(&read_lake, &path, error));
            split_lines(chunks, line_splitter, &slices).await
        });
        return Ok(line_chunks(lake, object, received, task, on_unreadable));
    };
    let path = files
        .path_to_filesystem(&path)
        .context(|| format!("cannot read the lake `{}`", lake.url))?;
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) => {
            on_unreadable.handle(&lake, &object, file_failure(&path, error))?;
            return Ok(stream::empty().boxed());
        }
    };
    let task = tokio::task::spawn_blocking(move || {
        let chunks = std::iter::from_fn(move || {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            match file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
                Ok(0) => None,
                Ok(_) => Some(Ok(Bytes::from(chunk))),
                Err(error) => Some(Err(file_failure(&path, error))),
            }
        });
        // This thread may block.
        futures::executor::block_on(split_lines(stream::iter(chunks), line_splitter, &slices))
    });
    Ok(line_chunks(lake, object, received, task, on_unreadable))
}

/// Splits the chunks of an object into lines and sends them, until the object ends or the receiver
/// is dropped.
async fn split_lines(
    chunks: impl futures::Stream<Item = Result<Bytes, ReadFailure>>,
    mut line_splitter: LineSplitter,
    slices: &mpsc::Sender<LineChunk>,
) -> Result<(), ReadFailure> {
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
        // Fails only if the receiver is dropped, because then no more chunks are needed.
        let _ = slices.send(slice).await;
    }
    Ok(())
}

/// Returns the received chunks, followed by the end of the object or the error of the reading task.
fn line_chunks(
    lake: Lake,
    object: RawObject,
    received: mpsc::Receiver<LineChunk>,
    task: JoinHandle<Result<(), ReadFailure>>,
    on_unreadable: OnUnreadableObject,
) -> ScanChunks {
    let read_object = object.clone();
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
        match task.await.context(interrupted)? {
            Ok(()) => Ok::<_, Error>(Some(ScanChunk::End)),
            Err(failure) => {
                on_unreadable.handle(&lake, &read_object, failure)?;
                Ok(None)
            }
        }
    });
    slices.chain(end.try_filter_map(|end| ready(Ok(end)))).boxed()
}

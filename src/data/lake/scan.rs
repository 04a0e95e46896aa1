//! Reading raw objects: many small ones together, large ones slice by slice.

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

/// Objects of one group that are read at a time from S3.
const CONCURRENT_READS: usize = 16;
/// Objects in one group at most.
const GROUP_OBJECTS: usize = 2_048;
/// Bytes of a large file that are read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// What packed JSON mostly unpacks to, times its size.
const COMPRESSION_RATIO: u64 = 8;

/// What is decoded in one go.
pub enum ScanChunk {
    /// Whole objects, as they are stored.
    Objects(Vec<(RawObject, Bytes)>),
    /// A part of one that is large, unpacked.
    LineChunk { object: RawObject, slice: LineChunk },
    /// The last slice of an object has been handed out.
    End,
}

/// What is decoded, as it is read.
pub type ScanChunks = BoxStream<'static, Result<ScanChunk>>;

impl RawObject {
    /// Its records are packed by gzip.
    pub fn is_compressed(&self) -> bool {
        self.path.as_ref().ends_with(".gz")
    }

    /// About how long its records are.
    fn decompressed_bytes(&self) -> u64 {
        if self.is_compressed() {
            self.size_bytes.saturating_mul(COMPRESSION_RATIO)
        } else {
            self.size_bytes
        }
    }
}

/// How much is read at a time.
#[derive(Debug, Clone, Copy)]
pub struct ChunkSize {
    /// Small objects are joined, and large ones cut, to so many bytes.
    pub bytes: u64,
    /// An object of more bytes is cut: that copies each of them once more.
    pub max_whole_bytes: u64,
}

/// Reads objects while they are being listed, and ahead of who decodes them.
pub fn read_objects(lake: &Lake, objects: Objects, size: ChunkSize) -> ScanChunks {
    let lake = lake.clone();
    let ahead = if lake.files.is_some() { 2 } else { 6 };
    let read = move |group: Result<Vec<RawObject>>| {
        let lake = lake.clone();
        // A task of its own goes on while nobody asks.
        let reading = group.map(|group| tokio::spawn(read_group(lake, group, size)));
        async move { reading?.await.context(interrupted)? }
    };
    groups(objects, size.bytes)
        .map(read)
        .buffered(ahead)
        .try_flatten()
        .boxed()
}

/// What ended before its time says so.
pub fn interrupted() -> &'static str {
    "reading the lake was interrupted"
}

/// Small objects that lie beside each other are joined; a large one stays alone.
fn groups(objects: Objects, chunk_bytes: u64) -> BoxStream<'static, Result<Vec<RawObject>>> {
    let next_group = move |mut objects: std::pin::Pin<Box<stream::Peekable<Objects>>>| async move {
        let mut group: Vec<RawObject> = Vec::new();
        let mut bytes = 0;
        while let Some(Ok(next)) = objects.as_mut().peek().await {
            if !group.is_empty()
                && (bytes + next.decompressed_bytes() > chunk_bytes || group.len() == GROUP_OBJECTS)
            {
                break;
            }
            bytes += next.decompressed_bytes();
            group.extend(objects.try_next().await?);
        }
        if group.is_empty() {
            // The end, or what is wrong.
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
            let chunks = [
                ScanChunk::LineChunk {
                    object: object.clone(),
                    slice,
                },
                ScanChunk::End,
            ];
            Ok(stream::iter(chunks.map(Ok)).boxed())
        }
        [object] if !object.is_one_record && object.decompressed_bytes() > size.max_whole_bytes => {
            read_large(lake, object.clone(), size.bytes).await
        }
        _ => {
            let contents = read_whole(&lake, &group).await?;
            let chunk = ScanChunk::Objects(group.into_iter().zip(contents).collect());
            Ok(stream::iter([Ok(chunk)]).boxed())
        }
    }
}

/// The contents of objects, in their order.
async fn read_whole(lake: &Lake, objects: &[RawObject]) -> Result<Vec<Bytes>> {
    if let Some(files) = &lake.files {
        // One trip to a thread that may block for the whole group, not two for each object.
        let paths = objects
            .iter()
            .map(|object| files.path_to_filesystem(&object.path));
        let paths: Vec<PathBuf> = paths
            .collect::<Result<_, _>>()
            .context(|| format!("cannot read the lake `{}`", lake.url))?;
        let read = tokio::task::spawn_blocking(move || {
            let contents = paths.iter().map(|path| {
                std::fs::read(path)
                    .map(Bytes::from)
                    .map_err(|error| io_error("read", path, error))
            });
            contents.collect::<Result<Vec<_>>>()
        });
        return read.await.context(interrupted)?;
    }
    let read = |object: RawObject| async move {
        let got = lake
            .store
            .get(&object.path)
            .await
            .map_err(|error| cannot_read(lake, &object.path, error))?;
        got.bytes()
            .await
            .map_err(|error| cannot_read(lake, &object.path, error))
    };
    stream::iter(objects.to_vec())
        .map(read)
        .buffered(CONCURRENT_READS)
        .try_collect()
        .await
}

fn cannot_read(lake: &Lake, path: &Path, error: object_store::Error) -> Error {
    failure(
        format!("cannot read `{path}` of the lake `{}`", lake.url),
        error,
    )
}

/// Slices of one object, read while others are decoded.
async fn read_large(lake: Lake, object: RawObject, slice_bytes: u64) -> Result<ScanChunks> {
    let is_compressed = object.is_compressed();
    let line_splitter = LineSplitter::new(
        is_compressed,
        usize::try_from(slice_bytes).unwrap_or(usize::MAX),
    );
    let (slices, received) = mpsc::channel(1);
    let path = object.path.clone();
    let Some(files) = &lake.files else {
        let got = lake
            .store
            .get(&path)
            .await
            .map_err(|error| cannot_read(&lake, &path, error))?;
        let reading = tokio::spawn(async move {
            let chunks = got
                .into_stream()
                .map_err(|error| cannot_read(&lake, &path, error));
            slice_chunks(chunks, line_splitter, is_compressed, &slices).await
        });
        return Ok(handed_out(object, received, reading));
    };
    let path = files
        .path_to_filesystem(&path)
        .context(|| format!("cannot read the lake `{}`", lake.url))?;
    let mut file = std::fs::File::open(&path).map_err(|error| io_error("read", &path, error))?;
    let reading = tokio::task::spawn_blocking(move || {
        let chunks = std::iter::from_fn(move || {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            match file
                .by_ref()
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut chunk)
            {
                Ok(0) => None,
                Ok(_) => Some(Ok(Bytes::from(chunk))),
                Err(error) => Some(Err(io_error("read", &path, error))),
            }
        });
        // On a thread that may block.
        futures::executor::block_on(slice_chunks(
            stream::iter(chunks),
            line_splitter,
            is_compressed,
            &slices,
        ))
    });
    Ok(handed_out(object, received, reading))
}

/// Cuts what comes until it ends, or nobody wants more.
async fn slice_chunks(
    chunks: impl futures::Stream<Item = Result<Bytes>>,
    mut line_splitter: LineSplitter,
    is_compressed: bool,
    slices: &mpsc::Sender<LineChunk>,
) -> Result<()> {
    let mut chunks = std::pin::pin!(chunks);
    while let Some(chunk) = chunks.try_next().await? {
        for piece in chunk.chunks(if is_compressed {
            COMPRESSED_PIECE_BYTES
        } else {
            CHUNK_BYTES
        }) {
            for slice in line_splitter.push(piece) {
                if slices.send(slice).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    for slice in line_splitter.finish() {
        // Whoever does not want it has ended.
        let _ = slices.send(slice).await;
    }
    Ok(())
}

/// The slices, and after the last one whether reading ended well.
fn handed_out(
    object: RawObject,
    received: mpsc::Receiver<LineChunk>,
    reading: impl Future<Output = Result<Result<()>, tokio::task::JoinError>> + Send + 'static,
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
        reading.await.context(interrupted)??;
        Ok(ScanChunk::End)
    });
    slices.chain(end).boxed()
}

//! One partition: segment files of record batches, found again after any kill.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kafka_protocol::error::ResponseError;

use crate::local::broker::record_batch::{BatchHeader, HEADER_BYTES, MAX_BYTES, is_intact, split};

/// A segment is closed at this size.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// One index entry for about so many bytes of a segment.
const INDEX_BYTES: u64 = 16 * 1024;
/// Batches of one producer that are remembered, as Kafka does, to find repeats.
const REMEMBERED_BATCHES: usize = 5;

/// Where a batch stands in its segment.
#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    offset: i64,
    position: u64,
}

struct Segment {
    base_offset: i64,
    path: PathBuf,
    file: File,
    size_bytes: u64,
    index: Vec<IndexEntry>,
    max_timestamp_ms: i64,
}

/// What an idempotent producer has sent last.
#[derive(Debug, Default)]
struct ProducerState {
    epoch: i16,
    /// First and last sequence number and base offset, oldest first.
    batches: VecDeque<(i32, i32, i64)>,
}

/// The log of one partition.
pub struct Log {
    folder: PathBuf,
    segments: Vec<Segment>,
    start_offset: i64,
    end_offset: i64,
    producers: HashMap<i64, ProducerState>,
}

impl Log {
    /// Opens the folder, makes it where there is none, and cuts off a batch that a
    /// kill left half-written. A new log begins at `first_offset`.
    pub fn open(folder: &Path, first_offset: i64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut bases: Vec<i64> = std::fs::read_dir(folder)?
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".log")?
                    .parse()
                    .ok()
            })
            .collect();
        bases.sort_unstable();
        let start_offset = bases.first().copied().unwrap_or(first_offset);
        let mut log = Self {
            folder: folder.to_path_buf(),
            segments: Vec::new(),
            start_offset,
            end_offset: start_offset,
            producers: HashMap::new(),
        };
        for (number, base) in bases.iter().enumerate() {
            let is_last = number + 1 == bases.len();
            log.recover(*base, is_last)?;
        }
        Ok(log)
    }

    /// Offset of the first record there is.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// Offset the next record gets.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    fn recover(&mut self, base_offset: i64, is_last: bool) -> io::Result<()> {
        let path = self.folder.join(format!("{base_offset:020}.log"));
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        let mut segment = Segment {
            base_offset,
            path,
            file,
            size_bytes: 0,
            index: Vec::new(),
            max_timestamp_ms: 0,
        };
        let mut header_bytes = [0u8; HEADER_BYTES];
        while segment.size_bytes + HEADER_BYTES as u64 <= length {
            segment
                .file
                .read_exact_at(&mut header_bytes, segment.size_bytes)?;
            let Some(header) = BatchHeader::read(&header_bytes) else {
                break;
            };
            if segment.size_bytes + header.size_bytes as u64 > length {
                break;
            }
            // Only the last segment can have been cut short; the others were closed.
            if is_last {
                let mut batch = vec![0u8; header.size_bytes];
                segment.file.read_exact_at(&mut batch, segment.size_bytes)?;
                if !is_intact(&header, &batch) {
                    break;
                }
            }
            segment.note(&header);
            self.remember(&header);
            self.end_offset = header.last_offset() + 1;
        }
        if segment.size_bytes < length {
            segment.cut_off(length)?;
        }
        self.end_offset = self.end_offset.max(base_offset);
        self.segments.push(segment);
        Ok(())
    }

    /// Appends what a producer sent; returns the offset of its first record.
    ///
    /// # Errors
    /// What [`split`] refuses, a sequence number out of order, `KAFKA_STORAGE_ERROR`
    /// where the file cannot be written (nothing of the request is kept then).
    pub fn append(&mut self, records: &[u8]) -> Result<i64, ResponseError> {
        let batches = split(records)?;
        let Some((first, _)) = batches.first() else {
            return Err(ResponseError::InvalidRecord);
        };
        if let Some(repeated) = self.check_sequence(first)? {
            return Ok(repeated);
        }
        let base = self.end_offset;
        let mut bytes = records.to_vec();
        let mut headers = Vec::with_capacity(batches.len());
        let (mut at, mut next) = (0, base);
        for (mut header, _) in batches {
            header.base_offset = next;
            // The checksum covers neither the base offset nor the leader's epoch.
            bytes[at..at + 8].copy_from_slice(&next.to_be_bytes());
            bytes[at + 12..at + 16].copy_from_slice(&0i32.to_be_bytes());
            at += header.size_bytes;
            next = header.last_offset() + 1;
            headers.push(header);
        }
        self.write(&bytes).map_err(|error| {
            tracing::error!(folder = %self.folder.display(), %error, "cannot append");
            ResponseError::KafkaStorageError
        })?;
        let segment = self
            .segments
            .last_mut()
            .ok_or(ResponseError::KafkaStorageError)?;
        for header in &headers {
            segment.note(header);
        }
        for header in &headers {
            self.remember(header);
        }
        self.end_offset = next;
        Ok(base)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let needs_new = self.segments.last().is_none_or(|segment| {
            segment.size_bytes > 0 && segment.size_bytes + bytes.len() as u64 > SEGMENT_BYTES
        });
        if needs_new {
            let path = self.folder.join(format!("{:020}.log", self.end_offset));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            self.segments.push(Segment {
                base_offset: self.end_offset,
                path,
                file,
                size_bytes: 0,
                index: Vec::new(),
                max_timestamp_ms: 0,
            });
        }
        let segment = self
            .segments
            .last()
            .ok_or_else(|| io::Error::other("no segment"))?;
        segment
            .file
            .write_all_at(bytes, segment.size_bytes)
            .inspect_err(|_| {
                // A full disk may have taken a part; the next append must not follow it.
                let _ = segment.file.set_len(segment.size_bytes);
            })
    }

    /// `Some(offset)`: this batch is there already.
    fn check_sequence(&self, header: &BatchHeader) -> Result<Option<i64>, ResponseError> {
        if header.producer_id < 0 {
            return Ok(None);
        }
        let Some(state) = self.producers.get(&header.producer_id) else {
            // A producer that is not known starts anywhere: its history may have been dropped.
            return Ok(None);
        };
        if header.producer_epoch < state.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch > state.epoch {
            return if header.base_sequence == 0 {
                Ok(None)
            } else {
                Err(ResponseError::OutOfOrderSequenceNumber)
            };
        }
        let same = |(first, last, _): &&(i32, i32, i64)| {
            *first == header.base_sequence && *last == header.last_sequence()
        };
        if let Some((_, _, offset)) = state.batches.iter().find(same) {
            return Ok(Some(*offset));
        }
        let expected = state
            .batches
            .back()
            .map(|(_, last, _)| (i64::from(*last) + 1) & 0x7fff_ffff);
        match expected {
            Some(expected) if expected != i64::from(header.base_sequence) => {
                Err(ResponseError::OutOfOrderSequenceNumber)
            }
            _ => Ok(None),
        }
    }

    fn remember(&mut self, header: &BatchHeader) {
        if header.producer_id < 0 {
            return;
        }
        let state = self.producers.entry(header.producer_id).or_default();
        if header.producer_epoch != state.epoch {
            *state = ProducerState {
                epoch: header.producer_epoch,
                batches: VecDeque::new(),
            };
        }
        if state.batches.len() == REMEMBERED_BATCHES {
            state.batches.pop_front();
        }
        state.batches.push_back((
            header.base_sequence,
            header.last_sequence(),
            header.base_offset,
        ));
    }

    /// Whole batches from the one that holds `offset` on: about `most_bytes`, but at
    /// least one batch. Empty at the end of the log.
    ///
    /// # Errors
    /// `OFFSET_OUT_OF_RANGE` before the start and after the end of the log.
    pub fn read(&self, offset: i64, max_bytes: usize) -> Result<Vec<u8>, ResponseError> {
        if offset < self.start_offset || offset > self.end_offset {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let after = self
            .segments
            .partition_point(|segment| segment.base_offset <= offset);
        let mut bytes = Vec::new();
        for segment in &self.segments[after.saturating_sub(1)..] {
            bytes = segment
                .read(offset, max_bytes.min(MAX_BYTES))
                .map_err(|error| {
                    tracing::error!(path = %segment.path.display(), %error, "cannot read");
                    ResponseError::KafkaStorageError
                })?;
            if !bytes.is_empty() {
                break;
            }
        }
        Ok(bytes)
    }

    /// The first batch with a record at or after this time: its offset and time.
    /// It points at a batch without looking into it, so earlier records may precede.
    pub fn offset_of_time(&self, timestamp_ms: i64) -> Option<(i64, i64)> {
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.size_bytes > 0 && segment.max_timestamp_ms >= timestamp_ms)?;
        let mut position = 0;
        while let Ok(Some(header)) = segment.header_at(position) {
            if header.max_timestamp_ms >= timestamp_ms {
                return Some((header.base_offset, header.max_timestamp_ms));
            }
            position += header.size_bytes as u64;
        }
        None
    }

    /// Drops closed segments whose newest record is older than `oldest_ms`.
    pub fn drop_old_segments(&mut self, oldest_ms: i64) {
        while self.segments.len() > 1 && self.segments[0].max_timestamp_ms < oldest_ms {
            let segment = self.segments.remove(0);
            if let Err(error) = std::fs::remove_file(&segment.path) {
                tracing::warn!(path = %segment.path.display(), %error, "cannot drop an old segment");
            }
            self.start_offset = self.segments[0].base_offset;
        }
    }
}

impl Segment {
    /// Takes a batch that was written at the end into the books.
    fn note(&mut self, header: &BatchHeader) {
        if self
            .index
            .last()
            .is_none_or(|entry| self.size_bytes >= entry.position + INDEX_BYTES)
        {
            self.index.push(IndexEntry {
                offset: header.base_offset,
                position: self.size_bytes,
            });
        }
        self.size_bytes += header.size_bytes as u64;
        self.max_timestamp_ms = self.max_timestamp_ms.max(header.max_timestamp_ms);
    }

    /// Removes what follows the last whole batch: the half-written one of a kill, or damage,
    /// which is kept in a file of its own.
    fn cut_off(&self, length: u64) -> io::Result<()> {
        let mut rest = vec![0u8; usize::try_from(length - self.size_bytes).unwrap_or(0)];
        self.file.read_exact_at(&mut rest, self.size_bytes)?;
        let is_torn = rest.len() < HEADER_BYTES
            || BatchHeader::read(&rest).is_some_and(|header| header.size_bytes > rest.len());
        if is_torn {
            tracing::info!(path = %self.path.display(), bytes = rest.len(), "cut off a half-written batch");
        } else {
            let aside = self
                .path
                .with_extension(format!("damaged-at-{}", self.size_bytes));
            std::fs::write(&aside, &rest)?;
            tracing::error!(path = %self.path.display(), aside = %aside.display(), bytes = rest.len(), "a segment is damaged: what follows was set aside");
        }
        self.file.set_len(self.size_bytes)
    }

    fn header_at(&self, position: u64) -> io::Result<Option<BatchHeader>> {
        if position + HEADER_BYTES as u64 > self.size_bytes {
            return Ok(None);
        }
        let mut bytes = [0u8; HEADER_BYTES];
        self.file.read_exact_at(&mut bytes, position)?;
        Ok(BatchHeader::read(&bytes))
    }

    fn read(&self, offset: i64, max_bytes: usize) -> io::Result<Vec<u8>> {
        let after = self.index.partition_point(|entry| entry.offset <= offset);
        let mut position = after.checked_sub(1).map_or(0, |at| self.index[at].position);
        let first = loop {
            match self.header_at(position)? {
                None => return Ok(Vec::new()),
                Some(header) if header.last_offset() >= offset => break header,
                Some(header) => position += header.size_bytes as u64,
            }
        };
        let available = usize::try_from(self.size_bytes - position).unwrap_or(usize::MAX);
        let mut bytes = vec![0u8; max_bytes.max(first.size_bytes).min(available)];
        self.file.read_exact_at(&mut bytes, position)?;
        // Only whole batches leave.
        let mut whole = 0;
        while let Some(header) = BatchHeader::read(&bytes[whole..]) {
            if whole + header.size_bytes > bytes.len() {
                break;
            }
            whole += header.size_bytes;
        }
        bytes.truncate(whole);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::broker::record_batch::tests::batch;

    fn offsets(bytes: &[u8]) -> Vec<(i64, i64)> {
        split(bytes)
            .expect("whole batches")
            .iter()
            .map(|(header, _)| (header.base_offset, header.last_offset()))
            .collect()
    }

    #[test]
    fn a_read_from_inside_a_batch_returns_that_batch() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(folder.path(), 0).expect("opens");
        assert_eq!(log.append(&batch(5, 100, 1)), Ok(0));
        assert_eq!(log.append(&batch(5, 100, 2)), Ok(5));
        assert_eq!(offsets(&log.read(3, 1).expect("reads")), [(0, 4)]);
        assert_eq!(
            offsets(&log.read(3, 10_000).expect("reads")),
            [(0, 4), (5, 9)]
        );
        assert_eq!(log.read(10, 1), Ok(Vec::new()));
        assert_eq!(log.read(11, 1), Err(ResponseError::OffsetOutOfRange));
    }

    #[test]
    fn a_half_written_batch_is_cut_off_and_the_rest_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(folder.path(), 0).expect("opens");
        log.append(&batch(2, 50, 1)).expect("appends");
        log.append(&batch(3, 50, 2)).expect("appends");
        let path = log.segments[0].path.clone();
        drop(log);
        let bytes = std::fs::read(&path).expect("the segment");
        for cut in 1..bytes.len() / 2 {
            std::fs::write(&path, &bytes[..bytes.len() - cut]).expect("cut");
            let mut log = Log::open(folder.path(), 0).expect("opens again");
            assert_eq!(log.end_offset(), 2, "after {cut} bytes were lost");
            assert_eq!(log.append(&batch(1, 10, 3)), Ok(2));
        }
    }

    #[test]
    fn damage_in_the_middle_is_set_aside_and_not_thrown_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(folder.path(), 0).expect("opens");
        for _ in 0..3 {
            log.append(&batch(2, 50, 1)).expect("appends");
        }
        let path = log.segments[0].path.clone();
        drop(log);
        let mut bytes = std::fs::read(&path).expect("the segment");
        let at = bytes.len() / 3 + 70;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).expect("damages");
        assert_eq!(
            Log::open(folder.path(), 0)
                .expect("opens again")
                .end_offset(),
            2
        );
        let aside = path.with_extension(format!("damaged-at-{}", bytes.len() / 3));
        assert_eq!(
            std::fs::read(aside).expect("set aside"),
            bytes[bytes.len() / 3..]
        );
    }

    #[test]
    fn an_idempotent_producers_repeat_is_answered_and_not_kept_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(folder.path(), 0).expect("opens");
        let sent = |sequence: i32| {
            let mut bytes = batch(2, 20, 1);
            bytes[43..51].copy_from_slice(&7i64.to_be_bytes());
            bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
            let crc = crc32c::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            bytes
        };
        assert_eq!(log.append(&sent(0)), Ok(0));
        assert_eq!(log.append(&sent(2)), Ok(2));
        assert_eq!(log.append(&sent(2)), Ok(2));
        assert_eq!(
            log.append(&sent(9)),
            Err(ResponseError::OutOfOrderSequenceNumber)
        );
        drop(log);
        let mut log = Log::open(folder.path(), 0).expect("opens again");
        assert_eq!(
            log.append(&sent(2)),
            Ok(2),
            "repeats are found after a restart"
        );
        assert_eq!(log.end_offset(), 4);
    }

    #[test]
    fn times_find_their_batch() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(folder.path(), 0).expect("opens");
        log.append(&batch(2, 20, 100)).expect("appends");
        log.append(&batch(2, 20, 200)).expect("appends");
        assert_eq!(log.offset_of_time(50), Some((0, 100)));
        assert_eq!(log.offset_of_time(101), Some((2, 200)));
        assert_eq!(log.offset_of_time(201), None);
    }
}

//! One partition: segment files of record batches, recovered after a crash.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kafka_protocol::error::ResponseError;

use crate::local::broker::record_batch::{
    BatchHeader, HEADER_BYTES, MAX_BATCH_BYTES, first_record_from, is_intact, split_batches,
};

/// Size above which a segment is closed, in bytes.
const MAX_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Minimum distance between two index entries in a segment, in bytes.
const INDEX_INTERVAL_BYTES: u64 = 16 * 1024;
/// Number of recent batches that are recorded for each producer to detect duplicates, as in Kafka.
const RETAINED_BATCHES: usize = 5;

/// Position of a batch in its segment.
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

/// The last batches of an idempotent producer.
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
    /// Opens the folder, creates it if it does not exist, and truncates a batch that a crash left
    /// incomplete. A new log begins at `first_offset`.
    pub fn open(folder: &Path, first_offset: i64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut bases: Vec<i64> = std::fs::read_dir(folder)?
            .filter_map(|entry| {
                entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse().ok()
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

    /// Returns the offset of the first record.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// Returns the offset of the next record to append.
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
            segment.file.read_exact_at(&mut header_bytes, segment.size_bytes)?;
            let Some(header) = BatchHeader::read(&header_bytes) else {
                break;
            };
            if segment.size_bytes + header.size_bytes as u64 > length {
                break;
            }
            // Only the last segment can be incomplete: the others are closed.
            if is_last {
                let mut batch = vec![0u8; header.size_bytes];
                segment.file.read_exact_at(&mut batch, segment.size_bytes)?;
                if !is_intact(&header, &batch) {
                    break;
                }
            }
            segment.record_batch(&header);
            self.record_producer_batch(&header);
            self.end_offset = header.last_offset() + 1;
        }
        if segment.size_bytes < length {
            segment.truncate_tail(length)?;
        }
        self.end_offset = self.end_offset.max(base_offset);
        self.segments.push(segment);
        Ok(())
    }

    /// Appends the records of a produce request; returns the offset of the first one.
    ///
    /// # Errors
    /// The errors of [`split_batches`]; a sequence number out of order; `KAFKA_STORAGE_ERROR` if
    /// the file cannot be written (then no record of the request is stored).
    pub fn append(&mut self, records: &[u8]) -> Result<i64, ResponseError> {
        let batches = split_batches(records)?;
        let Some((first, _)) = batches.first() else {
            return Err(ResponseError::InvalidRecord);
        };
        if let Some(existing) = self.check_sequence(first)? {
            return Ok(existing);
        }
        let base = self.end_offset;
        let mut bytes = records.to_vec();
        let mut headers = Vec::with_capacity(batches.len());
        let (mut position, mut next_offset) = (0, base);
        for (mut header, _) in batches {
            header.base_offset = next_offset;
            // The checksum covers neither the base offset nor the leader epoch.
            bytes[position..position + 8].copy_from_slice(&next_offset.to_be_bytes());
            bytes[position + 12..position + 16].copy_from_slice(&0i32.to_be_bytes());
            position += header.size_bytes;
            next_offset = header.last_offset() + 1;
            headers.push(header);
        }
        self.write(&bytes).map_err(|error| {
            tracing::error!(folder = %self.folder.display(), %error, "cannot append to the log");
            ResponseError::KafkaStorageError
        })?;
        let segment = self.segments.last_mut().ok_or(ResponseError::KafkaStorageError)?;
        for header in &headers {
            segment.record_batch(header);
        }
        for header in &headers {
            self.record_producer_batch(header);
        }
        self.end_offset = next_offset;
        Ok(base)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let needs_new_segment = self.segments.last().is_none_or(|segment| {
            segment.size_bytes > 0 && segment.size_bytes + bytes.len() as u64 > MAX_SEGMENT_BYTES
        });
        if needs_new_segment {
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
        let segment = self.segments.last().ok_or_else(|| io::Error::other("no segment"))?;
        segment.file.write_all_at(bytes, segment.size_bytes).inspect_err(|_| {
            // A full disk may leave a partial write, which the next append must not follow.
            let _ = segment.file.set_len(segment.size_bytes);
        })
    }

    /// Checks the sequence number. Returns the base offset if the batch is a duplicate.
    fn check_sequence(&self, header: &BatchHeader) -> Result<Option<i64>, ResponseError> {
        if header.producer_id < 0 {
            return Ok(None);
        }
        let Some(state) = self.producers.get(&header.producer_id) else {
            // An unknown producer may start at any sequence number: its batches may have been
            // deleted.
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
        let is_duplicate = |(first, last, _): &&(i32, i32, i64)| {
            *first == header.base_sequence && *last == header.last_sequence()
        };
        if let Some((_, _, offset)) = state.batches.iter().find(is_duplicate) {
            return Ok(Some(*offset));
        }
        let expected =
            state.batches.back().map(|(_, last, _)| (i64::from(*last) + 1) & 0x7fff_ffff);
        match expected {
            Some(expected) if expected != i64::from(header.base_sequence) => {
                Err(ResponseError::OutOfOrderSequenceNumber)
            }
            _ => Ok(None),
        }
    }

    fn record_producer_batch(&mut self, header: &BatchHeader) {
        if header.producer_id < 0 {
            return;
        }
        let state = self.producers.entry(header.producer_id).or_default();
        if header.producer_epoch != state.epoch {
            *state = ProducerState { epoch: header.producer_epoch, batches: VecDeque::new() };
        }
        if state.batches.len() == RETAINED_BATCHES {
            state.batches.pop_front();
        }
        state.batches.push_back((header.base_sequence, header.last_sequence(), header.base_offset));
    }

    /// Reads complete batches, beginning with the batch that contains `offset`: at most
    /// `max_bytes`, but at least one batch. Empty at the end of the log.
    ///
    /// # Errors
    /// `OFFSET_OUT_OF_RANGE` before the start and after the end of the log;
    /// `KAFKA_STORAGE_ERROR` if the file cannot be read.
    pub fn read(&self, offset: i64, max_bytes: usize) -> Result<Vec<u8>, ResponseError> {
        if offset < self.start_offset || offset > self.end_offset {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        let mut bytes = Vec::new();
        for segment in &self.segments[after.saturating_sub(1)..] {
            bytes = segment.read(offset, max_bytes.min(MAX_BATCH_BYTES)).map_err(|error| {
                let path = segment.path.display();
                tracing::error!(%path, %error, "cannot read the segment");
                ResponseError::KafkaStorageError
            })?;
            if !bytes.is_empty() {
                break;
            }
        }
        Ok(bytes)
    }

    /// Returns offset and timestamp of the first record at or after the timestamp. For a compressed
    /// batch, returns the first offset and the maximum timestamp: the batch may begin with earlier
    /// records.
    pub fn offset_for_timestamp(&self, timestamp_ms: i64) -> Option<(i64, i64)> {
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.size_bytes > 0 && segment.max_timestamp_ms >= timestamp_ms)?;
        let mut position = 0;
        while let Ok(Some(header)) = segment.header_at(position) {
            if header.max_timestamp_ms >= timestamp_ms {
                let batch = segment.batch_at(position, &header).ok()?;
                return first_record_from(&header, &batch, timestamp_ms)
                    .or(Some((header.base_offset, header.max_timestamp_ms)));
            }
            position += header.size_bytes as u64;
        }
        None
    }

    /// Returns offset and timestamp of the first record with the maximum timestamp of the log. For
    /// a compressed batch, returns the last offset, because the last record is usually the latest.
    /// `None` if the log is empty.
    pub fn offset_of_max_timestamp(&self) -> Option<(i64, i64)> {
        let filled = || self.segments.iter().filter(|segment| segment.size_bytes > 0);
        let max = filled().map(|segment| segment.max_timestamp_ms).max()?;
        let segment = filled().find(|segment| segment.max_timestamp_ms == max)?;
        let mut position = 0;
        while let Ok(Some(header)) = segment.header_at(position) {
            // The maximum timestamp of a segment is at least 0, even if its records have negative
            // timestamps.
            if header.max_timestamp_ms.max(0) == max {
                let batch = segment.batch_at(position, &header).ok()?;
                return first_record_from(&header, &batch, header.max_timestamp_ms)
                    .or(Some((header.last_offset(), header.max_timestamp_ms)));
            }
            position += header.size_bytes as u64;
        }
        None
    }

    /// Deletes closed segments whose newest record is older than `oldest_ms`.
    pub fn drop_old_segments(&mut self, oldest_ms: i64) {
        while self.segments.len() > 1 && self.segments[0].max_timestamp_ms < oldest_ms {
            let path = &self.segments[0].path;
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                // The file still exists, so the segment stays in the log, as it does after a
                // restart.
                tracing::warn!(path = %path.display(), %error, "cannot delete an old segment");
                return;
            }
            self.segments.remove(0);
            self.start_offset = self.segments[0].base_offset;
        }
    }
}

impl Segment {
    /// Updates index, size and timestamp for a batch that was written at the end.
    fn record_batch(&mut self, header: &BatchHeader) {
        if self
            .index
            .last()
            .is_none_or(|entry| self.size_bytes >= entry.position + INDEX_INTERVAL_BYTES)
        {
            self.index.push(IndexEntry { offset: header.base_offset, position: self.size_bytes });
        }
        self.size_bytes += header.size_bytes as u64;
        self.max_timestamp_ms = self.max_timestamp_ms.max(header.max_timestamp_ms);
    }

    /// Truncates everything after the last complete batch: an incomplete batch after a crash, or
    /// damaged data, which is first copied to a separate file.
    fn truncate_tail(&self, length: u64) -> io::Result<()> {
        let mut rest = vec![0u8; usize::try_from(length - self.size_bytes).unwrap_or(0)];
        self.file.read_exact_at(&mut rest, self.size_bytes)?;
        let is_torn = rest.len() < HEADER_BYTES
            || BatchHeader::read(&rest).is_some_and(|header| header.size_bytes > rest.len());
        if is_torn {
            tracing::info!(
                path = %self.path.display(),
                bytes = rest.len(),
                "truncated an incomplete batch"
            );
        } else {
            let backup = self.path.with_extension(format!("damaged-at-{}", self.size_bytes));
            std::fs::write(&backup, &rest)?;
            tracing::error!(
                path = %self.path.display(),
                backup = %backup.display(),
                bytes = rest.len(),
                "the segment is damaged: moved the rest to a backup file"
            );
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

    fn batch_at(&self, position: u64, header: &BatchHeader) -> io::Result<Vec<u8>> {
        let mut batch = vec![0u8; header.size_bytes];
        self.file.read_exact_at(&mut batch, position)?;
        Ok(batch)
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
        // Only complete batches are returned.
        let mut complete_bytes = 0;
        while let Some(header) = BatchHeader::read(&bytes[complete_bytes..]) {
            if complete_bytes + header.size_bytes > bytes.len() {
                break;
            }
            complete_bytes += header.size_bytes;
        }
        bytes.truncate(complete_bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::broker::record_batch::tests::{batch, batch_at};

    fn offsets(bytes: &[u8]) -> Vec<(i64, i64)> {
        split_batches(bytes)
            .expect("complete batches")
            .iter()
            .map(|(header, _)| (header.base_offset, header.last_offset()))
            .collect()
    }

    #[test]
    fn returns_the_whole_batch_for_an_offset_inside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(folder.path(), 0).expect("opens");
        assert_eq!(log.append(&batch(5, 100, 1)), Ok(0));
        assert_eq!(log.append(&batch(5, 100, 2)), Ok(5));
        assert_eq!(offsets(&log.read(3, 1).expect("reads")), [(0, 4)]);
        assert_eq!(offsets(&log.read(3, 10_000).expect("reads")), [(0, 4), (5, 9)]);
        assert_eq!(log.read(10, 1), Ok(Vec::new()));
        assert_eq!(log.read(11, 1), Err(ResponseError::OffsetOutOfRange));
    }

    #[test]
    fn truncates_an_incomplete_batch_and_keeps_the_others() {
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
    fn copies_damaged_data_to_a_backup_file() {
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
        assert_eq!(Log::open(folder.path(), 0).expect("opens again").end_offset(), 2);
        let backup = path.with_extension(format!("damaged-at-{}", bytes.len() / 3));
        assert_eq!(std::fs::read(backup).expect("the backup file"), bytes[bytes.len() / 3..]);
    }

    #[test]
    fn stores_a_duplicate_batch_of_an_idempotent_producer_once() {
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
        assert_eq!(log.append(&sent(9)), Err(ResponseError::OutOfOrderSequenceNumber));
        drop(log);
        let mut log = Log::open(folder.path(), 0).expect("opens again");
        assert_eq!(log.append(&sent(2)), Ok(2), "duplicates are detected after a restart");
        assert_eq!(log.end_offset(), 4);
    }

    #[test]
    fn finds_the_first_batch_for_a_timestamp() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(folder.path(), 0).expect("opens");
        log.append(&batch(2, 20, 100)).expect("appends");
        log.append(&batch(2, 20, 200)).expect("appends");
        assert_eq!(log.offset_for_timestamp(50), Some((0, 100)));
        assert_eq!(log.offset_for_timestamp(101), Some((2, 200)));
        assert_eq!(log.offset_for_timestamp(201), None);
        log.append(&batch(2, 20, 150)).expect("appends");
        assert_eq!(log.offset_of_max_timestamp(), Some((3, 200)));
        // The records of an uncompressed batch are searched one by one.
        log.append(&batch_at(&[150, 300, 250])).expect("appends");
        assert_eq!(log.offset_for_timestamp(201), Some((7, 300)));
        assert_eq!(log.offset_of_max_timestamp(), Some((7, 300)));
    }
}

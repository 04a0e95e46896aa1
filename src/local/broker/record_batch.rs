//! Record batches (magic 2) in the format of Kafka. The broker reads only their headers.
//!
//! Layout: <https://kafka.apache.org/documentation/#recordbatch>

use kafka_protocol::error::ResponseError;

/// Size of the header, which precedes the records.
pub const HEADER_BYTES: usize = 61;
/// Size of base offset and length, which the length field does not include.
pub const PREFIX_BYTES: usize = 12;
/// Maximum size of a batch.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Size of the batch, including the prefix.
    pub size_bytes: usize,
    pub crc: u32,
    pub last_offset_delta: i32,
    pub max_timestamp_ms: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

impl BatchHeader {
    /// Reads a header. Returns `None` if the bytes are not the start of a batch.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let long = |at: usize| {
            i64::from_be_bytes([
                header[at],
                header[at + 1],
                header[at + 2],
                header[at + 3],
                header[at + 4],
                header[at + 5],
                header[at + 6],
                header[at + 7],
            ])
        };
        let int = |at: usize| {
            i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let size_bytes = usize::try_from(int(8)).ok()?.checked_add(PREFIX_BYTES)?;
        let last_offset_delta = int(23);
        if header[16] != 2
            || !(HEADER_BYTES..=MAX_BATCH_BYTES).contains(&size_bytes)
            || last_offset_delta < 0
        {
            return None;
        }
        Some(Self {
            base_offset: long(0),
            size_bytes,
            crc: int(17) as u32,
            last_offset_delta,
            max_timestamp_ms: long(35),
            producer_id: long(43),
            producer_epoch: i16::from_be_bytes([header[51], header[52]]),
            base_sequence: int(53),
        })
    }

    /// Returns the offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Returns the sequence number of the last record. Sequence numbers wrap at 2^31.
    pub fn last_sequence(&self) -> i32 {
        ((i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) & 0x7fff_ffff) as i32
    }
}

/// Returns whether the batch is complete and its checksum, which starts at the attributes, matches.
pub fn is_intact(header: &BatchHeader, batch: &[u8]) -> bool {
    batch.len() == header.size_bytes && crc32c::crc32c(&batch[21..]) == header.crc
}

/// Returns offset and timestamp of the first record of a batch at or after a timestamp. `None` if
/// the batch has none, or if it is compressed: the broker does not decompress batches.
pub fn first_record_from(
    header: &BatchHeader,
    batch: &[u8],
    timestamp_ms: i64,
) -> Option<(i64, i64)> {
    const COMPRESSION: u8 = 0b111;
    let base_timestamp_ms = i64::from_be_bytes(batch.get(27..35)?.try_into().ok()?);
    if batch.get(22)? & COMPRESSION != 0 {
        return None;
    }
    let mut rest = batch.get(HEADER_BYTES..)?;
    while !rest.is_empty() {
        let length = usize::try_from(read_varint(&mut rest)?).ok()?;
        let (record, next) = rest.split_at_checked(length)?;
        rest = next;
        let mut fields = record.get(1..)?; // After the attributes.
        let record_ms = base_timestamp_ms.checked_add(read_varint(&mut fields)?)?;
        let offset = header.base_offset.checked_add(read_varint(&mut fields)?)?;
        if record_ms >= timestamp_ms {
            return Some((offset, record_ms));
        }
    }
    None
}

/// Reads a zigzag-encoded varint of at most ten bytes.
fn read_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for index in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (index * 7);
        if *byte < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Splits the records of a produce request into validated batches.
///
/// # Errors
/// `CORRUPT_MESSAGE`, `UNSUPPORTED_FOR_MESSAGE_FORMAT` (magic 0 and 1), `MESSAGE_TOO_LARGE`.
pub fn split_batches(records: &[u8]) -> Result<Vec<(BatchHeader, &[u8])>, ResponseError> {
    let mut batches = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        if rest.len() > MAX_BATCH_BYTES {
            return Err(ResponseError::MessageTooLarge);
        }
        if rest.get(16).is_some_and(|magic| *magic < 2) {
            return Err(ResponseError::UnsupportedForMessageFormat);
        }
        let header = BatchHeader::read(rest).ok_or(ResponseError::CorruptMessage)?;
        let batch = rest.get(..header.size_bytes).ok_or(ResponseError::CorruptMessage)?;
        if !is_intact(&header, batch) {
            return Err(ResponseError::CorruptMessage);
        }
        batches.push((header, batch));
        rest = &rest[header.size_bytes..];
    }
    Ok(batches)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns a batch of `count` records with `filler` bytes in total.
    pub fn batch(count: i32, filler: usize, timestamp_ms: i64) -> Vec<u8> {
        let mut bytes = vec![0u8; HEADER_BYTES + filler];
        let length = (bytes.len() - PREFIX_BYTES) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
        bytes[43..51].copy_from_slice(&(-1i64).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Returns a batch with a record for each timestamp.
    pub fn batch_at(timestamps_ms: &[i64]) -> Vec<u8> {
        let base = timestamps_ms[0];
        let max = timestamps_ms.iter().copied().max().expect("a timestamp");
        let mut bytes = batch(timestamps_ms.len() as i32, 0, max);
        bytes[27..35].copy_from_slice(&base.to_be_bytes());
        for (index, timestamp) in timestamps_ms.iter().enumerate() {
            // Zigzag varints of two bytes for the timestamp and one for the offset; no key, no
            // value and no headers.
            let delta = (timestamp - base) * 2;
            let low = (delta & 0x7f) as u8 | 0x80;
            let record = [0, low, (delta >> 7) as u8, index as u8 * 2, 1, 1, 0];
            bytes.push(record.len() as u8 * 2);
            bytes.extend(record);
        }
        let length = (bytes.len() - PREFIX_BYTES) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn finds_records_by_timestamp_unless_they_are_compressed() {
        let mut bytes = batch_at(&[1_000, 3_000, 2_000]);
        let header = BatchHeader::read(&bytes).expect("a header");
        assert!(is_intact(&header, &bytes));
        let find = |bytes: &[u8], timestamp_ms| first_record_from(&header, bytes, timestamp_ms);
        assert_eq!(find(&bytes, 0), Some((0, 1_000)));
        assert_eq!(find(&bytes, 1_001), Some((1, 3_000)));
        assert_eq!(find(&bytes, 3_001), None);
        for end in 0..bytes.len() {
            assert_eq!(find(&bytes[..end], 3_001), None, "damaged after {end} bytes");
        }
        bytes[22] |= 3;
        assert_eq!(find(&bytes, 0), None, "compressed");
    }

    #[test]
    fn splits_complete_batches_and_rejects_damaged_ones() {
        let mut bytes = batch(3, 10, 5);
        bytes.extend(batch(2, 0, 6));
        let batches = split_batches(&bytes).expect("two batches");
        assert_eq!(
            batches.iter().map(|(header, _)| header.last_offset_delta).collect::<Vec<_>>(),
            [2, 1]
        );
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert_eq!(split_batches(&bytes), Err(ResponseError::CorruptMessage));
        assert_eq!(split_batches(&bytes[..last]), Err(ResponseError::CorruptMessage));
    }
}

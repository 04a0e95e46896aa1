//! The formats of the supported requests, to check all lengths in a frame before it is decoded.
//!
//! The decoder of `kafka-protocol` reserves memory for as many elements as the length of an array
//! says, regardless of the size of the frame: a frame of 19 bytes could request 150 GB, which
//! aborts the process. A frame that passes this check has no length beyond its end and a limited
//! number of elements. The check itself allocates nothing.
//!
//! Source of the formats: <https://kafka.apache.org/protocol#protocol_messages>

use kafka_protocol::messages::ApiKey;

use self::Format::{Blob, Fixed, Numbers, Structs, Text, Texts};

/// Maximum number of array elements and tagged fields in a request. A consumer of 10,000
/// partitions needs 10,000; in memory, an element takes less than 1 KiB.
const MAX_ELEMENTS: u32 = 100_000;
/// Last version of a field that no version has removed.
const LAST: i16 = i16::MAX;

/// First and last version of a request that have the field, and its format.
struct Field(i16, i16, Format);

/// The format of a field.
enum Format {
    /// Numbers, booleans and ids of this total size in bytes.
    Fixed(usize),
    /// A string or null. The length has two bytes.
    Text,
    /// Bytes or null. The length has four bytes.
    Blob,
    /// An array of four-byte numbers, or null. The length has four bytes, as in all arrays.
    Numbers,
    /// An array of strings, or null.
    Texts,
    /// An array of structures with these fields, or null.
    Structs(&'static [Field]),
}

/// Returns the first flexible version of a request, and its fields. In flexible versions, lengths
/// are varints, and every structure ends with tagged fields.
fn fields_of(api: ApiKey) -> Option<(i16, &'static [Field])> {
    let request: (i16, &'static [Field]) = match api {
        ApiKey::Produce => (
            9,
            &[
                Field(0, LAST, Text),         // transactional_id
                Field(0, LAST, Fixed(2 + 4)), // acks, timeout_ms
                Field(
                    0,
                    LAST,
                    Structs(&[
                        Field(0, LAST, Text), // name
                        // index, records
                        Field(0, LAST, Structs(&[Field(0, LAST, Fixed(4)), Field(0, LAST, Blob)])),
                    ]),
                ),
            ],
        ),
        ApiKey::Fetch => (
            12,
            &[
                // replica_id, max_wait_ms, min_bytes, max_bytes, isolation_level
                Field(0, LAST, Fixed(4 + 4 + 4 + 4 + 1)),
                Field(7, LAST, Fixed(4 + 4)), // session_id, session_epoch
                Field(
                    0,
                    LAST,
                    Structs(&[
                        Field(0, LAST, Text), // topic
                        Field(
                            0,
                            LAST,
                            Structs(&[
                                Field(0, LAST, Fixed(4)),  // partition
                                Field(9, LAST, Fixed(4)),  // current_leader_epoch
                                Field(0, LAST, Fixed(8)),  // fetch_offset
                                Field(12, LAST, Fixed(4)), // last_fetched_epoch
                                Field(5, LAST, Fixed(8)),  // log_start_offset
                                Field(0, LAST, Fixed(4)),  // partition_max_bytes
                            ]),
                        ),
                    ]),
                ),
                // Forgotten topics with their partitions.
                Field(7, LAST, Structs(&[Field(0, LAST, Text), Field(0, LAST, Numbers)])),
                Field(11, LAST, Text), // rack_id
            ],
        ),
        ApiKey::ListOffsets => (
            6,
            &[
                Field(0, LAST, Fixed(4)), // replica_id
                Field(2, LAST, Fixed(1)), // isolation_level
                Field(
                    0,
                    LAST,
                    Structs(&[
                        Field(0, LAST, Text), // name
                        Field(
                            0,
                            LAST,
                            Structs(&[
                                Field(0, LAST, Fixed(4)), // partition_index
                                Field(4, LAST, Fixed(4)), // current_leader_epoch
                                Field(0, LAST, Fixed(8)), // timestamp
                            ]),
                        ),
                    ]),
                ),
            ],
        ),
        ApiKey::Metadata => (
            9,
            &[
                // topic_id, name
                Field(0, LAST, Structs(&[Field(10, LAST, Fixed(16)), Field(0, LAST, Text)])),
                Field(4, LAST, Fixed(1)), // allow_auto_topic_creation
                Field(8, 10, Fixed(1)),   // include_cluster_authorized_operations
                Field(8, LAST, Fixed(1)), // include_topic_authorized_operations
            ],
        ),
        ApiKey::OffsetCommit => (
            8,
            &[
                Field(0, LAST, Text),     // group_id
                Field(0, LAST, Fixed(4)), // generation_id_or_member_epoch
                Field(0, LAST, Text),     // member_id
                Field(7, LAST, Text),     // group_instance_id
                Field(0, 4, Fixed(8)),    // retention_time_ms
                Field(
                    0,
                    LAST,
                    Structs(&[
                        Field(0, LAST, Text), // name
                        Field(
                            0,
                            LAST,
                            Structs(&[
                                Field(0, LAST, Fixed(4 + 8)), // partition_index, committed_offset
                                Field(6, LAST, Fixed(4)),     // committed_leader_epoch
                                Field(0, LAST, Text),         // committed_metadata
                            ]),
                        ),
                    ]),
                ),
            ],
        ),
        ApiKey::OffsetFetch => (
            6,
            &[
                Field(0, 7, Text), // group_id
                // Topics with their partitions.
                Field(0, 7, Structs(&[Field(0, LAST, Text), Field(0, LAST, Numbers)])),
                Field(
                    8,
                    LAST,
                    Structs(&[
                        Field(0, LAST, Text), // group_id
                        // Topics with their partitions.
                        Field(0, LAST, Structs(&[Field(0, LAST, Text), Field(0, LAST, Numbers)])),
                    ]),
                ),
                Field(7, LAST, Fixed(1)), // require_stable
            ],
        ),
        ApiKey::FindCoordinator => (
            3,
            &[
                Field(0, 3, Text),        // key
                Field(1, LAST, Fixed(1)), // key_type
                Field(4, LAST, Texts),    // coordinator_keys
            ],
        ),
        ApiKey::JoinGroup => (
            6,
            &[
                Field(0, LAST, Text),     // group_id
                Field(0, LAST, Fixed(4)), // session_timeout_ms
                Field(1, LAST, Fixed(4)), // rebalance_timeout_ms
                Field(0, LAST, Text),     // member_id
                Field(5, LAST, Text),     // group_instance_id
                Field(0, LAST, Text),     // protocol_type
                // Protocols: name, metadata.
                Field(0, LAST, Structs(&[Field(0, LAST, Text), Field(0, LAST, Blob)])),
                Field(8, LAST, Text), // reason
            ],
        ),
        ApiKey::Heartbeat => (
            4,
            &[
                Field(0, LAST, Text),     // group_id
                Field(0, LAST, Fixed(4)), // generation_id
                Field(0, LAST, Text),     // member_id
                Field(3, LAST, Text),     // group_instance_id
            ],
        ),
        ApiKey::LeaveGroup => (
            4,
            &[
                Field(0, LAST, Text), // group_id
                Field(0, 2, Text),    // member_id
                Field(
                    3,
                    LAST,
                    Structs(&[
                        Field(0, LAST, Text), // member_id
                        Field(0, LAST, Text), // group_instance_id
                        Field(5, LAST, Text), // reason
                    ]),
                ),
            ],
        ),
        ApiKey::SyncGroup => (
            4,
            &[
                Field(0, LAST, Text),     // group_id
                Field(0, LAST, Fixed(4)), // generation_id
                Field(0, LAST, Text),     // member_id
                Field(3, LAST, Text),     // group_instance_id
                Field(5, LAST, Text),     // protocol_type
                Field(5, LAST, Text),     // protocol_name
                // Assignments: member_id, assignment.
                Field(0, LAST, Structs(&[Field(0, LAST, Text), Field(0, LAST, Blob)])),
            ],
        ),
        ApiKey::DescribeGroups => (
            5,
            &[
                Field(0, LAST, Texts),    // groups
                Field(3, LAST, Fixed(1)), // include_authorized_operations
            ],
        ),
        ApiKey::ListGroups => (3, &[Field(4, LAST, Texts)]), // states_filter
        ApiKey::ApiVersions => (
            3,
            &[
                Field(3, LAST, Text), // client_software_name
                Field(3, LAST, Text), // client_software_version
            ],
        ),
        ApiKey::CreateTopics => (
            5,
            &[
                Field(
                    0,
                    LAST,
                    Structs(&[
                        Field(0, LAST, Text),         // name
                        Field(0, LAST, Fixed(4 + 2)), // num_partitions, replication_factor
                        // Assignments: partition_index, broker_ids.
                        Field(
                            0,
                            LAST,
                            Structs(&[Field(0, LAST, Fixed(4)), Field(0, LAST, Numbers)]),
                        ),
                        // Configs: name, value.
                        Field(0, LAST, Structs(&[Field(0, LAST, Text), Field(0, LAST, Text)])),
                    ]),
                ),
                Field(0, LAST, Fixed(4 + 1)), // timeout_ms, validate_only
            ],
        ),
        ApiKey::DeleteTopics => (
            4,
            &[
                // Topics: name, topic_id.
                Field(6, LAST, Structs(&[Field(0, LAST, Text), Field(0, LAST, Fixed(16))])),
                Field(0, 5, Texts),       // topic_names
                Field(0, LAST, Fixed(4)), // timeout_ms
            ],
        ),
        ApiKey::InitProducerId => (
            2,
            &[
                Field(0, LAST, Text),         // transactional_id
                Field(0, LAST, Fixed(4)),     // transaction_timeout_ms
                Field(3, LAST, Fixed(8 + 2)), // producer_id, producer_epoch
            ],
        ),
        ApiKey::DescribeConfigs => (
            4,
            &[
                Field(
                    0,
                    LAST,
                    Structs(&[
                        Field(0, LAST, Fixed(1)), // resource_type
                        Field(0, LAST, Text),     // resource_name
                        Field(0, LAST, Texts),    // configuration_keys
                    ]),
                ),
                Field(0, LAST, Fixed(1)), // include_synonyms
                Field(3, LAST, Fixed(1)), // include_documentation
            ],
        ),
        ApiKey::DeleteGroups => (2, &[Field(0, LAST, Texts)]), // groups_names
        ApiKey::DescribeCluster => (
            0,
            &[
                Field(0, LAST, Fixed(1)), // include_cluster_authorized_operations
                Field(1, LAST, Fixed(1)), // endpoint_type
            ],
        ),
        _ => return None,
    };
    Some(request)
}

/// Checks all lengths in a frame, header included, without the four bytes of its own length.
///
/// # Errors
/// A length is negative or exceeds the rest of the frame; the request has more than
/// [`MAX_ELEMENTS`] elements; the request is not supported.
pub fn check(api: ApiKey, version: i16, frame: &[u8]) -> Result<(), String> {
    let (first_flexible, fields) =
        fields_of(api).ok_or_else(|| format!("{api:?} is not supported"))?;
    let mut reader = Reader { rest: frame, version, is_flexible: false, elements: 0 };
    reader.request(first_flexible, fields).ok_or_else(|| {
        format!(
            "a length in the {api:?} request exceeds the request of {} bytes or the limit of \
             {MAX_ELEMENTS} elements",
            frame.len()
        )
    })
}

/// Reads the lengths of a request. Every method returns `None` for an invalid length.
struct Reader<'a> {
    rest: &'a [u8],
    version: i16,
    is_flexible: bool,
    /// Number of elements and tagged fields so far.
    elements: u32,
}

impl Reader<'_> {
    fn request(&mut self, first_flexible: i16, fields: &[Field]) -> Option<()> {
        self.skip(2 + 2 + 4)?; // API, version and correlation id
        self.field(&Text)?; // The client id, whose length has two bytes in every version.
        self.is_flexible = self.version >= first_flexible;
        self.tagged_fields()?;
        self.structure(fields)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    /// Reads a varint of at most five bytes. Like the decoder, drops bits beyond the 32nd.
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for index in 0..5 {
            let byte = u32::from(*self.rest.first()?);
            self.skip(1)?;
            value |= (byte & 0x7f) << (index * 7);
            if byte < 0x80 {
                break;
            }
        }
        Some(value)
    }

    /// Reads a length, which is 0 for null. `width` is the size of the length in bytes in versions
    /// that are not flexible.
    fn length(&mut self, width: usize) -> Option<u32> {
        if self.is_flexible {
            return self.varint().map(|length| length.saturating_sub(1));
        }
        let bytes = self.rest.get(..width)?;
        let value = match *bytes {
            [a, b] => i32::from(i16::from_be_bytes([a, b])),
            [a, b, c, d] => i32::from_be_bytes([a, b, c, d]),
            _ => return None,
        };
        self.skip(width)?;
        if value == -1 { Some(0) } else { u32::try_from(value).ok() }
    }

    /// Counts elements, each of which has at least one byte.
    fn count(&mut self, elements: u32) -> Option<u32> {
        self.elements = self.elements.checked_add(elements)?;
        let fits = usize::try_from(elements).ok()? <= self.rest.len();
        (fits && self.elements <= MAX_ELEMENTS).then_some(elements)
    }

    fn array_length(&mut self) -> Option<u32> {
        let length = self.length(4)?;
        self.count(length)
    }

    fn structure(&mut self, fields: &[Field]) -> Option<()> {
        for Field(first, last, format) in fields {
            if (*first..=*last).contains(&self.version) {
                self.field(format)?;
            }
        }
        self.tagged_fields()
    }

    fn field(&mut self, format: &Format) -> Option<()> {
        match format {
            Fixed(bytes) => self.skip(*bytes),
            Text => {
                let length = self.length(2)?;
                self.skip(usize::try_from(length).ok()?)
            }
            Blob => {
                let length = self.length(4)?;
                self.skip(usize::try_from(length).ok()?)
            }
            Numbers => {
                let length = self.array_length()?;
                self.skip(usize::try_from(length).ok()?.checked_mul(4)?)
            }
            Texts => {
                for _ in 0..self.array_length()? {
                    self.field(&Text)?;
                }
                Some(())
            }
            Structs(fields) => {
                for _ in 0..self.array_length()? {
                    self.structure(fields)?;
                }
                Some(())
            }
        }
    }

    /// Reads the tagged fields at the end of a structure: each has a tag, a size and bytes.
    fn tagged_fields(&mut self) -> Option<()> {
        if !self.is_flexible {
            return Some(());
        }
        let fields = self.varint()?;
        for _ in 0..self.count(fields)? {
            self.varint()?;
            let size = self.varint()?;
            self.skip(usize::try_from(size).ok()?)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::{RequestHeader, RequestKind};
    use kafka_protocol::protocol::Decodable;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::local::broker::api;

    /// Writes requests in their format.
    struct Writer {
        frame: Vec<u8>,
        version: i16,
        is_flexible: bool,
        /// Number of elements in each array, and of tagged fields in each structure.
        elements: usize,
    }

    impl Writer {
        fn length(&mut self, length: usize, width: usize) {
            if self.is_flexible {
                // A varint of one byte, because the lengths here are small.
                self.frame.push(length as u8 + 1);
            } else {
                self.frame.extend(&(length as u32).to_be_bytes()[4 - width..]);
            }
        }

        fn structure(&mut self, fields: &[Field]) {
            for Field(first, last, format) in fields {
                if (*first..=*last).contains(&self.version) {
                    self.field(format);
                }
            }
            self.tagged_fields();
        }

        fn field(&mut self, format: &Format) {
            match format {
                Fixed(bytes) => self.frame.extend(vec![0; *bytes]),
                Text => {
                    self.length(2, 2);
                    self.frame.extend(b"ab");
                }
                Blob => {
                    self.length(3, 4);
                    self.frame.extend([1, 2, 3]);
                }
                Numbers => {
                    self.length(self.elements, 4);
                    self.frame.extend(vec![0; self.elements * 4]);
                }
                Texts => {
                    self.length(self.elements, 4);
                    (0..self.elements).for_each(|_| self.field(&Text));
                }
                Structs(fields) => {
                    self.length(self.elements, 4);
                    (0..self.elements).for_each(|_| self.structure(fields));
                }
            }
        }

        fn tagged_fields(&mut self) {
            if self.is_flexible {
                self.frame.push(self.elements as u8);
                for index in 0..self.elements {
                    // A tag that no request uses, and a value of one byte.
                    self.frame.extend([100 + index as u8, 1, 7]);
                }
            }
        }
    }

    /// Returns a valid frame of a request.
    fn frame(api: ApiKey, version: i16, elements: usize) -> Vec<u8> {
        let (first_flexible, fields) = fields_of(api).expect("a format");
        let mut writer = Writer { frame: Vec::new(), version, is_flexible: false, elements };
        writer.frame.extend((api as i16).to_be_bytes());
        writer.frame.extend(version.to_be_bytes());
        writer.frame.extend(7i32.to_be_bytes());
        writer.field(&Text);
        writer.is_flexible = version >= first_flexible;
        writer.tagged_fields();
        writer.structure(fields);
        writer.frame
    }

    /// Decodes a frame as the server does. Returns the number of bytes after the request.
    fn decode(api: ApiKey, version: i16, frame: &[u8]) -> Result<usize, String> {
        let mut bytes = Bytes::copy_from_slice(frame);
        RequestHeader::decode(&mut bytes, api.request_header_version(version))
            .map_err(|error| error.to_string())?;
        RequestKind::decode(api, &mut bytes, version).map_err(|error| format!("{error:#}"))?;
        Ok(bytes.remaining())
    }

    /// Calls `test` with every supported API and version.
    fn for_every_version(test: impl Fn(ApiKey, i16)) {
        for (api, min, max) in api::SUPPORTED_APIS {
            (*min..=*max).for_each(|version| test(*api, version));
        }
    }

    #[test]
    fn formats_are_those_of_the_decoder() {
        for_every_version(|api, version| {
            for elements in 0..3 {
                let frame = frame(api, version, elements);
                let name = format!("{api:?} version {version} with {elements} elements");
                assert_eq!(decode(api, version, &frame), Ok(0), "{name}");
                assert_eq!(check(api, version, &frame), Ok(()), "{name}");
                let truncated = &frame[..frame.len() - 1];
                assert!(check(api, version, truncated).is_err(), "truncated {name}");
            }
        });
    }

    #[test]
    fn refuses_the_frame_that_requests_150_gigabytes() {
        // Metadata version 1, correlation id 7, client id `x`, 2^31 - 1 topics.
        let frame = [0, 3, 0, 1, 0, 0, 0, 7, 0, 1, b'x', 0x7f, 0xff, 0xff, 0xff];
        assert!(check(ApiKey::Metadata, 1, &frame).is_err());
        // Version 9, where the length is a varint.
        let frame = [0, 3, 0, 9, 0, 0, 0, 7, 0, 1, b'x', 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(check(ApiKey::Metadata, 9, &frame).is_err());
    }

    #[test]
    fn refuses_more_elements_than_the_limit_although_the_frame_contains_them() {
        let frame = |topics: u32| {
            let mut frame = vec![0, 3, 0, 1, 0, 0, 0, 7, 0, 1, b'x'];
            frame.extend(topics.to_be_bytes());
            (0..topics).for_each(|_| frame.extend([0, 1, b't']));
            frame
        };
        assert_eq!(check(ApiKey::Metadata, 1, &frame(MAX_ELEMENTS)), Ok(()));
        assert!(check(ApiKey::Metadata, 1, &frame(MAX_ELEMENTS + 1)).is_err());
    }

    /// A length that is too large would abort the process in `decode`, and with it this test.
    #[test]
    fn decodes_no_frame_with_a_length_beyond_its_end() {
        let decode_if_valid = |api, version, frame: &[u8]| {
            if check(api, version, frame).is_ok() {
                // The outcome does not matter: text that is not UTF-8 is an error, for instance.
                let _ = decode(api, version, frame);
            }
        };
        for_every_version(|api, version| {
            let valid = frame(api, version, 2);
            for at in 8..valid.len() {
                for large in [
                    &[0x7f, 0xff, 0xff, 0xff][..],
                    &[0x7f, 0xff],
                    &[0xff, 0xff, 0xff, 0xff, 0x0f],
                    &[0xff],
                    &[0x80],
                ] {
                    let mut overwritten = valid.clone();
                    let end = (at + large.len()).min(valid.len());
                    overwritten[at..end].copy_from_slice(&large[..end - at]);
                    decode_if_valid(api, version, &overwritten);
                    let mut inserted = valid.clone();
                    inserted.splice(at..at, large.iter().copied());
                    decode_if_valid(api, version, &inserted);
                }
            }
        });
    }

    proptest! {
        #[test]
        fn decodes_no_mutated_frame_that_needs_more_memory(
            which: Index,
            elements in 0usize..4,
            changes in vec((any::<Index>(), any::<u8>()), 0..12),
        ) {
            let versions: Vec<(ApiKey, i16)> = api::SUPPORTED_APIS
                .iter()
                .flat_map(|(api, min, max)| (*min..=*max).map(|version| (*api, version)))
                .collect();
            let (api, version) = *which.get(&versions);
            let mut frame = frame(api, version, elements);
            for (at, byte) in changes {
                let at = 8 + at.index(frame.len() - 8);
                frame[at] = byte;
            }
            if check(api, version, &frame).is_ok() {
                let _ = decode(api, version, &frame);
            }
        }
    }
}

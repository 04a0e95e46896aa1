//! Memory budget of a run, divided into shares for keys, caches and queries.

use std::path::{Path, PathBuf};

use crate::base::config::schema::Config;
use crate::base::config::size::memory_bytes;
use crate::base::error::Result;
use crate::base::model::Kind;
use crate::data::lake::scan::ChunkSize;
use crate::data::tables::clean_table::RowGroupSize;

const MIB: u64 = 1024 * 1024;
/// Reserved for the process itself and for untracked memory: allocator buffers, stacks and pages of
/// the binary.
const RESERVED_BYTES: u64 = 160 * MIB;
/// Bytes per post while questions are answered: its three rows and their join.
const POST_BYTES: u64 = 320;
/// Bytes per reject key during a lookup, including the growth of the hash sets.
const REJECT_KEY_BYTES: usize = 80;
/// Bytes per row number during a lookup, including the growth of the key set.
const ROW_NUMBER_BYTES: usize = 64;

/// Memory limit of a run and its shares.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    /// Memory limit without the reserve, in bytes.
    bytes: u64,
    /// Folder for data that is spilled to disk.
    pub spill_folder: PathBuf,
}

impl MemoryBudget {
    /// Creates the budget from `batch.memory`; default: half of the available memory. At least 32
    /// MiB remain after the reserve.
    ///
    /// # Errors
    /// `batch.memory` is not a valid size.
    pub fn of(config: &Config, spill_folder: &Path) -> Result<Self> {
        let bytes = memory_bytes(&config.batch.memory)?.unwrap_or_else(|| available_bytes() / 2);
        Ok(Self {
            bytes: bytes.saturating_sub(RESERVED_BYTES).max(32 * MIB),
            spill_folder: spill_folder.to_path_buf(),
        })
    }

    /// A budget so small that everything is spilled to disk, for tests.
    #[cfg(test)]
    pub fn minimal(spill_folder: &Path) -> Self {
        Self { bytes: 160_000, spill_folder: spill_folder.to_path_buf() }
    }

    /// Whether questions over `rows` rows of each kind can be answered in memory.
    pub fn fits_in_memory(&self, rows: u64) -> bool {
        rows <= self.cached_rows()
    }

    /// Whether the budget is so small that the kinds are ingested one after another, in small
    /// chunks.
    pub fn is_low_memory(&self) -> bool {
        self.bytes < 2048 * MIB
    }

    /// Number of workers that read and decode one kind. Each holds a chunk, or an object of several
    /// chunks, as text and as rows.
    pub fn workers(&self) -> usize {
        let kinds = if self.is_low_memory() { 1 } else { Kind::ALL.len() as u64 };
        crate::data::engine::session::cores().min(as_usize(self.bytes / (kinds * 96 * MIB))).max(1)
    }

    /// Size of a chunk that is read and decoded together: several small objects, or a part of a
    /// large one.
    pub fn chunk_size(&self) -> ChunkSize {
        if self.is_low_memory() {
            let bytes = (self.bytes / 256).clamp(MIB, 8 * MIB);
            ChunkSize { bytes, max_whole_bytes: bytes }
        } else {
            ChunkSize { bytes: 8 * MIB, max_whole_bytes: 32 * MIB }
        }
    }

    /// Size of the row group that a table writer holds in memory.
    pub fn row_group_size(&self) -> RowGroupSize {
        let (rows, bytes) =
            if self.is_low_memory() { (16 * 1024, 8 * MIB) } else { (128 * 1024, 128 * MIB) };
        RowGroupSize { rows, bytes: as_usize(bytes) }
    }

    /// Number of reject keys per lookup in the rejects table, which are held in memory.
    pub fn reject_lookup_batch(&self) -> usize {
        self.keys_bytes() / REJECT_KEY_BYTES
    }

    /// Memory for the keys that deduplicate rows of one kind, in bytes.
    pub fn keys_bytes(&self) -> usize {
        as_usize(self.bytes / 8)
    }

    /// Number of row numbers per lookup in a clean table. The keys of these rows are held in
    /// memory.
    pub fn key_lookup_batch(&self) -> usize {
        (self.keys_bytes() / ROW_NUMBER_BYTES).clamp(1000, 2_000_000)
    }

    /// Maximum number of rows per kind that are cached for the questions. If there are more, the
    /// questions read the tables.
    pub fn cached_rows(&self) -> u64 {
        self.bytes / 2 / POST_BYTES
    }

    /// Maximum size of the cached rows per kind, in bytes. This limit applies to wide rows.
    pub fn cached_bytes(&self) -> u64 {
        self.bytes / 8
    }

    /// Memory for sort, join and aggregation in queries that spill to disk, in bytes.
    pub fn query_bytes(&self) -> usize {
        as_usize(self.bytes / 2)
    }
}

fn as_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Memory that is available to this process, in bytes: the memory of the machine (4 GiB if
/// unknown), or the limit of the cgroup if it is lower.
fn available_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    // The memory limit of a container, if it has one.
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let machine = machine.map_or(4096 * MIB, |kib| kib * 1024);
    group.map_or(machine, |group| group.min(machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(mib: u64) -> MemoryBudget {
        MemoryBudget { bytes: mib * MIB - RESERVED_BYTES, spill_folder: PathBuf::new() }
    }

    #[test]
    fn shares_add_up_to_at_most_the_budget() {
        for mib in [256, 512, 1024, 4096, 65_536] {
            let budget = budget(mib);
            // Ingestion uses the keys of three kinds, or of one. Queries use the cached rows, or
            // the memory of the operators.
            let keys = budget.keys_bytes() as u64 * if budget.is_low_memory() { 1 } else { 3 };
            assert!(keys < budget.bytes / 2, "{mib} MiB");
            // Wide rows of three kinds, while operators group and sort them.
            assert!(budget.cached_bytes() * 3 <= budget.bytes / 2, "{mib} MiB");
            assert!(
                budget.cached_rows() * POST_BYTES <= budget.bytes / 2
                    && budget.query_bytes() as u64 <= budget.bytes / 2,
                "{mib} MiB"
            );
        }
    }
}

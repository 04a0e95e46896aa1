//! How much memory a run may take, and how that is shared out among what needs it.

use std::path::{Path, PathBuf};

use crate::base::config::schema::Config;
use crate::base::config::size::memory_bytes;
use crate::base::error::Result;
use crate::data::lake::scan::ChunkSize;
use crate::data::tables::writer::RowGroupSize;

const MIB: u64 = 1024 * 1024;
/// What the program itself takes, and what nobody counts: buffers of the allocator, stacks, pages of the binary.
const OWN_BYTES: u64 = 160 * MIB;
/// Bytes of a row of a post, its parts and what joins them, while questions are answered.
const POST_BYTES: u64 = 320;
/// Bytes that the place of a reject takes which is looked for and found, while the sets of them grow.
const PLACE_BYTES: usize = 80;
/// Bytes that a row number which is looked for takes, while the set of keys grows.
const NUMBER_BYTES: usize = 64;

/// The shares of a run's memory.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    /// What is left for the work.
    bytes: u64,
    /// Where that goes to which there is no room for in memory.
    pub spill_folder: PathBuf,
}

impl MemoryBudget {
    /// As `batch.memory` says.
    ///
    /// # Errors
    /// That is no size.
    pub fn of(config: &Config, spill_folder: &Path) -> Result<Self> {
        let bytes = memory_bytes(&config.batch.memory)?.unwrap_or_else(|| available_bytes() / 2);
        Ok(Self {
            bytes: bytes.saturating_sub(OWN_BYTES).max(32 * MIB),
            spill_folder: spill_folder.to_path_buf(),
        })
    }

    /// So little that everything is set aside, for tests.
    #[cfg(test)]
    pub fn least(spill_folder: &Path) -> Self {
        Self {
            bytes: 160_000,
            spill_folder: spill_folder.to_path_buf(),
        }
    }

    /// Whether questions over so many rows of each kind can be answered without leaving memory.
    pub fn fits_in_memory(&self, rows: u64) -> bool {
        rows <= self.cached_rows()
    }

    /// So little that the kinds are taken one after another, in small pieces.
    pub fn is_low_memory(&self) -> bool {
        self.bytes < 2048 * MIB
    }

    /// How many read and decode one kind at a time: each holds a portion, or an object of some
    /// portions, as text and as rows.
    pub fn workers(&self) -> usize {
        let kinds = if self.is_low_memory() { 1 } else { 3 };
        crate::data::engine::session::cores()
            .min(as_usize(self.bytes / (kinds * 96 * MIB)))
            .max(1)
    }

    /// What is read and decoded together: many small objects, or a part of a large one.
    pub fn chunk_size(&self) -> ChunkSize {
        if self.is_low_memory() {
            let bytes = (self.bytes / 256).clamp(MIB, 8 * MIB);
            ChunkSize {
                bytes,
                max_whole_bytes: bytes,
            }
        } else {
            ChunkSize {
                bytes: 8 * MIB,
                max_whole_bytes: 32 * MIB,
            }
        }
    }

    /// What a writer of tables holds before it goes to its file.
    pub fn row_group_size(&self) -> RowGroupSize {
        let (rows, bytes) = if self.is_low_memory() {
            (16 * 1024, 8 * MIB)
        } else {
            (128 * 1024, 128 * MIB)
        };
        RowGroupSize {
            rows,
            bytes: as_usize(bytes),
        }
    }

    /// Places of rejects that are looked for in a table in one go: they are held.
    pub fn reject_lookup_batch(&self) -> usize {
        self.keys_bytes() / PLACE_BYTES
    }

    /// What tells new rows of one kind from repeated ones.
    pub fn keys_bytes(&self) -> usize {
        as_usize(self.bytes / 8)
    }

    /// Row numbers that are looked for in a table in one go: those rows' keys are held.
    pub fn key_lookup_batch(&self) -> usize {
        (self.keys_bytes() / NUMBER_BYTES).clamp(1000, 2_000_000)
    }

    /// Rows of a kind that stay in memory for the questions; more of them are read back from the tables.
    pub fn cached_rows(&self) -> u64 {
        self.bytes / 2 / POST_BYTES
    }

    /// Bytes of a kind's rows that do, where those are wide.
    pub fn cached_bytes(&self) -> u64 {
        self.bytes / 8
    }

    /// What sorting, joining and grouping may take where they must go without the rest.
    pub fn query_bytes(&self) -> usize {
        as_usize(self.bytes / 2)
    }
}

fn as_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Memory of this machine, or of the part of it that this process may use.
fn available_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
    // A container's share, where it has one.
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
        MemoryBudget {
            bytes: mib * MIB - OWN_BYTES,
            spill_folder: PathBuf::new(),
        }
    }

    #[test]
    fn the_shares_never_make_more_than_the_whole() {
        for mib in [256, 512, 1024, 4096, 65_536] {
            let budget = budget(mib);
            // While reading: the keys of three kinds or of one; while answering: the rows that are kept, or the queries.
            let keys = budget.keys_bytes() as u64 * if budget.is_low_memory() { 1 } else { 3 };
            assert!(keys < budget.bytes / 2, "{mib} MiB");
            // Wide rows of three kinds, and where they are grouped and sorted.
            assert!(budget.cached_bytes() * 3 <= budget.bytes / 2, "{mib} MiB");
            assert!(
                budget.cached_rows() * POST_BYTES <= budget.bytes / 2
                    && budget.query_bytes() as u64 <= budget.bytes / 2,
                "{mib} MiB"
            );
        }
    }
}

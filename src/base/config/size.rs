//! Sizes as people write them: `512MB`, `4GiB`.

use crate::base::error::{Error, Result};

const UNITS: [(&str, u64); 7] = [
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("B", 1),
];
/// Less than this no run can do with.
const MIN_BYTES: u64 = 512_000_000;

/// Bytes of memory that a run may take. `None`: nothing is said.
///
/// # Errors
/// It is no size, or too small a one.
pub fn memory_bytes(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |reason: &str| {
        Error::usage(format!("`{text}` {reason}"))
            .hint("write 512MB, 1GB or 4GiB; 512MB is the least")
    };
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((strip_suffix_ignoring_case(text, name)?, *unit)))
        .ok_or_else(|| wrong("is no size: no unit stands at its end"))?;
    let number: f64 = number.trim().parse().map_err(|_| wrong("is no size"))?;
    let bytes = number * unit as f64;
    if bytes < MIN_BYTES as f64 || !bytes.is_finite() {
        return Err(wrong("is too little memory"));
    }
    Ok(Some(bytes as u64))
}

fn strip_suffix_ignoring_case<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(suffix.len())?;
    let (before, end) = (text.get(..at)?, text.get(at..)?);
    end.eq_ignore_ascii_case(suffix).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, bytes) in [
            ("1GB", 1_000_000_000),
            ("512 mib", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("999999999B", 999_999_999),
        ] {
            assert_eq!(
                memory_bytes(text).expect("is a size"),
                Some(bytes),
                "{text}"
            );
        }
        assert_eq!(memory_bytes("").expect("is nothing"), None);
        for wrong in ["1", "GB", "1MB", "-1GB", "1 TB", "ä", "infGB", "nanGB"] {
            assert!(memory_bytes(wrong).is_err(), "{wrong}");
        }
    }
}

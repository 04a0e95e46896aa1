//! Sizes with a unit, such as `512MB` and `4GiB`.

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
/// Minimum memory limit of `batch`, in bytes.
const MIN_BYTES: u64 = 512_000_000;

/// Parses the memory limit of `batch`, in bytes. `None`: the text is empty.
///
/// # Errors
/// The text is not a size; the size is below the minimum.
pub fn memory_bytes(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = |reason: &str| {
        Error::usage(format!("invalid size `{text}`: {reason}"))
            .hint("write 512MB, 1GB or 4GiB; the minimum is 512MB")
    };
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((strip_suffix_ignoring_case(text, name)?, *unit)))
        .ok_or_else(|| invalid("expected a number with a unit such as MB or GiB"))?;
    let number: f64 =
        number.trim().parse().map_err(|_| invalid("expected a number before the unit"))?;
    let bytes = number * unit as f64;
    if bytes < MIN_BYTES as f64 || !bytes.is_finite() {
        return Err(invalid("expected at least 512MB of memory"));
    }
    Ok(Some(bytes as u64))
}

fn strip_suffix_ignoring_case<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let start = text.len().checked_sub(suffix.len())?;
    let (before, end) = (text.get(..start)?, text.get(start..)?);
    end.eq_ignore_ascii_case(suffix).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_sizes_with_their_unit() {
        for (text, bytes) in [
            ("1GB", 1_000_000_000),
            ("512 mib", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("999999999B", 999_999_999),
        ] {
            assert_eq!(memory_bytes(text).expect("a valid size"), Some(bytes), "{text}");
        }
        assert_eq!(memory_bytes("").expect("no limit"), None);
        for invalid in ["1", "GB", "1MB", "-1GB", "1 TB", "ä", "infGB", "nanGB"] {
            assert!(memory_bytes(invalid).is_err(), "{invalid}");
        }
    }
}

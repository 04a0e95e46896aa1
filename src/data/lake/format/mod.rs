//! Formats of objects: one file per format, each an [`ObjectFormat`] for sink and batch.

pub mod json_lines;
pub mod object_format;

use crate::data::lake::compression::Compression;
use crate::data::lake::format::json_lines::JsonLines;
use crate::data::lake::format::object_format::ObjectFormat;

/// All formats. The first is the default of the sink connector.
pub const FORMATS: [&dyn ObjectFormat; 1] = [&JsonLines];

/// Splits the name of an object into the name without its extension, the format and the
/// compression. Returns `None` if no format has this extension.
pub fn of_object(name: &str) -> Option<(&str, &'static dyn ObjectFormat, Compression)> {
    FORMATS.into_iter().find_map(|format| {
        let (stem, compression) = format.parse_name(name)?;
        Some((stem, format, compression))
    })
}

/// Extensions of compressed objects that are not supported.
const OTHER_COMPRESSIONS: [&str; 7] = ["bz2", "lz4", "snappy", "xz", "zip", "zst", "zstd"];

/// Returns the extension of a name for messages, with the dot before it. For a compressed object,
/// it includes the extension of the format. Empty if the name has no extension.
pub fn extension(name: &str) -> &str {
    let is_extension =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let start = match name.rsplit_once('.') {
        Some((stem, last)) if is_extension(last) => match stem.rsplit_once('.') {
            Some((before, format))
                if OTHER_COMPRESSIONS.contains(&last) && is_extension(format) =>
            {
                before.len()
            }
            _ => stem.len(),
        },
        _ => name.len(),
    };
    &name[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_of_an_unknown_format_is_found() {
        for (name, expected) in [
            ("x.json.part", ".part"),
            ("x.json.zst", ".json.zst"),
            ("a.pin+0+0000000000.zst", ".zst"),
            ("a.pin+0+0000000000", ""),
            ("notes", ""),
        ] {
            assert_eq!(extension(name), expected, "{name}");
        }
    }

    #[test]
    fn the_name_of_an_object_tells_its_format() {
        for format in FORMATS {
            for compression in Compression::ALL {
                let name = format!("a.pin+0+0000000000.{}", format.extension(compression));
                let (stem, found, _) = of_object(&name).expect("a known format");
                assert_eq!((stem, found.class()), ("a.pin+0+0000000000", format.class()));
            }
        }
        for name in ["a.JSON", "a.jsonl", "a.ndjson", "a.Json.GZ", "a.ndjson.gz"] {
            assert_eq!(of_object(name).map(|(stem, ..)| stem), Some("a"), "{name}");
        }
        assert!(of_object("a.pin+0+0000000000.json.part").is_none());
        for name in ["a.JSON", "a.jsonl", "a.ndjson", "a.Json.GZ", "a.ndjson.gz"] {
            assert_eq!(of_object(name).map(|(stem, ..)| stem), Some("a"), "{name}");
        }
    }
}

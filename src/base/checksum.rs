//! Checksums: of files, and of texts that AWS does not give back as they were sent.

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest, Md5};

/// SHA-256 in 64 hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    digest(&SHA256, content)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// MD5 in 32 hexadecimal digits, as MSK Connect tells it of a plugin's file.
pub fn md5(content: &[u8]) -> String {
    Md5::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The first half of a text's SHA-256: enough to see a difference, short enough for a tag.
pub fn short(text: &str) -> String {
    sha256(text.as_bytes())[..32].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_usual_ones() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(md5(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(short("abc"), "ba7816bf8f01cfea414140de5dae2223");
    }
}

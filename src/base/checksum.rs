//! Checksums of files, and of texts that AWS reformats before it returns them.

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest, Md5};

/// Returns the SHA-256 in 64 hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the MD5 in 32 hexadecimal digits, as MSK Connect reports it for a plugin file.
pub fn md5(content: &[u8]) -> String {
    Md5::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the first 32 digits of the SHA-256 of a text: long enough to detect a change, short
/// enough for a tag.
pub fn short(text: &str) -> String {
    sha256(text.as_bytes())[..32].to_string()
}

/// Returns the first 64 bits of the SHA-256: the same in every version and on every machine, so
/// that it can be stored.
pub fn fingerprint(content: &[u8]) -> u64 {
    digest(&SHA256, content)
        .as_ref()
        .iter()
        .take(8)
        .fold(0, |bits, byte| (bits << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_published_test_vectors() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(md5(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(short("abc"), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(fingerprint(b"abc"), 0xba78_16bf_8f01_cfea);
    }
}

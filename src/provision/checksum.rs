//! Checksums: of files, and of texts that AWS does not give back as they were sent.

use aws_lc_rs::digest::{SHA256, digest};

/// SHA-256 in 64 hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Its first half: enough to see a difference, short enough for a tag.
pub fn short(text: &str) -> String {
    sha256(text.as_bytes())[..32].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_usual_ones() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(short("abc"), "ba7816bf8f01cfea414140de5dae2223");
    }
}

//! Finds where the records of a text begin and end, by the rules of `docs/records.md`.
//!
//! The decoder and the splitter of large objects share these functions, so that the records do not
//! depend on where a text is split.

use std::ops::Range;

/// Maximum size of a record, in bytes: 16 times Kafka's default `message.max.bytes`, about 1 MiB.
pub const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;
/// Maximum nesting depth of a record. A deeper record is cut off.
const MAX_DEPTH: usize = 128;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a text contains after a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A record, a tombstone, or text that is rejected. It may end with white space.
    Record(Range<usize>),
    /// Only separators.
    End,
    /// A record that begins here and ends in text that has not arrived yet.
    Incomplete(usize),
}

/// Where the JSON object at the beginning of a text ends.
enum Object {
    /// Length of the object.
    Complete(usize),
    CutOff,
    Open,
}

/// Returns the record after `from`, which is the beginning of the text or the end of a record. More
/// text may follow, unless the text `is_complete`.
pub fn next_record(text: &[u8], from: usize, is_complete: bool) -> Next {
    let start = skip_separators(text, from);
    let rest = &text[start..];
    let window = &rest[..rest.len().min(MAX_RECORD_BYTES)];
    let has_no_more = is_complete || window.len() == MAX_RECORD_BYTES;
    match window {
        [] => Next::End,
        [b'{', ..] => match object(window) {
            Object::Complete(length) => Next::Record(start..start + length),
            Object::Open if !has_no_more => Next::Incomplete(start),
            Object::Open | Object::CutOff => cut_off(text, start, is_complete),
        },
        [b'n', b'u', b'l', b'l'] if is_complete => Next::Record(start..start + 4),
        [b'n', b'u', b'l', b'l', next, ..] if is_separator(*next) => Next::Record(start..start + 4),
        _ => {
            let first = line_separators(text, from, start);
            match memchr::memchr(b'\n', window) {
                Some(length) => Next::Record(first..start + length),
                None if has_no_more => cut_off(text, first, is_complete),
                None => Next::Incomplete(start),
            }
        }
    }
}

/// Returns the beginning of the next line that begins with `{` or `[`. A record that is cut off
/// ends there.
pub fn next_record_line(text: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &text[from..]).map(|newline| from + newline + 1).find(|line| {
        let first = text[*line..].iter().find(|byte| !is_blank(**byte));
        matches!(first, Some(b'{' | b'['))
    })
}

/// Returns the last position at which a line begins with `{` after a line that ends with `}`. That
/// is always between two records: within a record, a comma must separate the two braces.
pub fn last_line_boundary(text: &[u8]) -> Option<usize> {
    let newline = memchr::memrchr_iter(b'\n', text).find(|newline| {
        text.get(newline + 1) == Some(&b'{')
            && text[..*newline].iter().rfind(|byte| !is_blank(**byte)) == Some(&b'}')
    });
    newline.map(|newline| newline + 1)
}

/// Returns the beginning of the line after `end`, the end of a record, if only separators are in
/// between.
pub fn line_after(text: &[u8], end: usize) -> Option<usize> {
    if text[..end].ends_with(b"\n") {
        return Some(end);
    }
    let next = text[end..].iter().position(|byte| *byte == b'\n' || !is_separator(*byte))?;
    (text[end + next] == b'\n').then_some(end + next + 1)
}

/// Returns whether a byte is JSON white space other than the line feed.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// Returns whether a byte is ASCII white space or separates the elements of an array.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | b',' | b'[' | b']')
}

fn skip_separators(text: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        at += text[at..].iter().take_while(|byte| is_separator(**byte)).count();
        if !text[at..].starts_with(BYTE_ORDER_MARK) {
            return at;
        }
        at += BYTE_ORDER_MARK.len();
    }
}

/// Returns the first bracket or comma before `start` in the same line, but not before `from`.
/// Without one, returns `start`.
fn line_separators(text: &[u8], from: usize, start: usize) -> usize {
    let line = memchr::memrchr(b'\n', &text[from..start]).map_or(from, |at| from + at + 1);
    let separator = text[line..start].iter().position(|byte| matches!(byte, b'[' | b']' | b','));
    separator.map_or(start, |at| line + at)
}

/// Returns a record that is cut off: it ends before the next line that can begin a record.
fn cut_off(text: &[u8], start: usize, is_complete: bool) -> Next {
    match next_record_line(text, start) {
        Some(line) => Next::Record(start..line),
        None if is_complete => Next::Record(start..text.len()),
        None => Next::Incomplete(start),
    }
}

/// Finds the end of the JSON object at the beginning of the text. Reads only its structure.
fn object(text: &[u8]) -> Object {
    // The closing brackets that are still expected, the next one last.
    let mut closing = Vec::new();
    let mut previous = b':';
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'"' => loop {
                let Some(length) = memchr::memchr3(b'"', b'\\', b'\n', &text[at..]) else {
                    return Object::Open;
                };
                at += length + 1;
                match text[at - 1] {
                    b'"' => break,
                    b'\n' => return Object::CutOff,
                    // Skips the escaped character. A line feed ends the string even after a
                    // backslash.
                    _ => at += usize::from(text.get(at).is_some_and(|byte| *byte != b'\n')),
                }
            },
            b'{' | b'[' => {
                let is_element = previous == b',' && closing.last() == Some(&b']');
                if byte == b'{' && !is_element && !matches!(previous, b':' | b'[') {
                    return Object::CutOff;
                }
                if closing.len() == MAX_DEPTH {
                    return Object::CutOff;
                }
                closing.push(if byte == b'{' { b'}' } else { b']' });
            }
            b'}' | b']' => {
                if closing.pop() != Some(byte) {
                    return Object::CutOff;
                }
                if closing.is_empty() {
                    return Object::Complete(at);
                }
            }
            _ => {}
        }
        previous = byte;
    }
    Object::Open
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a text, without white space at their ends.
    fn records(text: &str) -> Vec<&str> {
        let (mut records, mut at) = (Vec::new(), 0);
        while let Next::Record(record) = next_record(text.as_bytes(), at, true) {
            records.push(text[record.clone()].trim_ascii());
            at = record.end;
        }
        records
    }

    #[test]
    fn separates_records_in_lines_arrays_and_sequences() {
        let (one, two) = (r#"{"ind":1}"#, r#"{"ind":2,"x":[{"a":"}\"]"},{}]}"#);
        for text in [
            format!("{one}\n{two}\n"),
            format!("{one}{two}"),
            format!("{one} {two}\r"),
            format!("{one}\r{two}\r"),
            format!("{one}\x0b\x0c{two}"),
            format!("\u{feff}{one}\r\n\u{feff}{two}"),
            format!("[{one},{two}]"),
            format!("[\n  {one},\n  {two}\n]\n"),
            format!("[[{one}],\n[{two}]\n"),
            format!("{one},\n{two},\n"),
        ] {
            assert_eq!(records(&text), [one, two], "{text}");
        }
        let pretty = "{\n  \"ind\": 1,\n  \"x\": [\n    {},\n    {}\n  ]\n}";
        assert_eq!(records(&format!("[\n{pretty},\n{pretty}\n]")), [pretty, pretty]);
        assert_eq!(records("[]\n \n[[]]"), [""; 0]);
        assert_eq!(records("null\n[null,null]"), ["null"; 3]);
    }

    #[test]
    fn a_record_that_is_cut_off_ends_before_the_next_record() {
        for cut in [
            r#"{"ind":1,"count"#,
            r#"{"ind":1,"count\"#,
            r#"{"ind":1"#,
            r#"{"ind":1,"#,
            r#"{"ind":1,"x":"#,
            r#"{"ind":1,"x":{"a":1}"#,
            r#"{"ind":1,"x":[1}"#,
            "{\n  \"ind\": 1,\n  \"x\": {\n    \"a\": 1\n}",
        ] {
            for next in [r#"{"ind":2}"#, r#" {"ind":2}"#] {
                let text = format!("{cut}\n{next}\n{{\"ind\":3}}\n");
                assert_eq!(records(&text), [cut, next.trim(), r#"{"ind":3}"#], "{text}");
            }
            assert_eq!(records(cut), [cut]);
        }
        let deep = format!("{}\n{{}}", r#"{"a":"#.repeat(200));
        assert_eq!(records(&deep), [deep.trim_end_matches("\n{}"), "{}"]);
    }

    #[test]
    fn other_text_is_rejected_line_by_line() {
        assert_eq!(
            records("1\n\"a\" {\"ind\":1}\n{}x\n[1]\n"),
            ["1", "\"a\" {\"ind\":1}", "{}", "x", "[1]"]
        );
        assert_eq!(records("{\"ind\":nope}{}"), ["{\"ind\":nope}", "{}"]);
        assert_eq!(records("nullx\n}\n"), ["nullx", "}"]);
    }

    #[test]
    fn waits_for_the_end_of_a_record() {
        let incomplete: [&[u8]; 7] =
            [b"{\"ind\":1", b"{\"a\":\"\\", b"nul", b"null", b"12", b"1]", b"\xef\xbb"];
        for text in incomplete {
            assert!(matches!(next_record(text, 0, false), Next::Incomplete(0)), "{text:?}");
        }
        assert_eq!(next_record(b" \n[,", 0, false), Next::End);
        // Whether the next line begins with a record is not known yet.
        assert_eq!(next_record(b"{\"a\n  ", 0, false), Next::Incomplete(0));
        assert_eq!(next_record(b"{\"a\n  [", 0, false), Next::Record(0..4));
    }

    #[test]
    fn the_last_line_boundary_is_between_two_records() {
        assert_eq!(last_line_boundary(b"{}\n{} \r\n{"), Some(8));
        assert_eq!(last_line_boundary(b"{}\n{}\n"), Some(3));
        assert_eq!(last_line_boundary(b"[\n{},\n{}\n]\n"), None);
        assert_eq!(line_after(b"{} , \n{}", 2), Some(6));
        assert_eq!(line_after(b"{} {}\n", 2), None);
        assert_eq!(line_after(b"{\"a\n{}", 4), Some(4));
    }
}

//! What the terminal can show: colour, Unicode, width, no control characters.

use std::io::IsTerminal;

use clap::ValueEnum;

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// Whether to colour stdout or stderr.
    pub fn is_enabled(self, stream: &impl IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                stream.is_terminal() && !is_dumb && std::env::var_os("NO_COLOR").is_none()
            }
        }
    }
}

/// Whether the locale uses UTF-8; `true` if no locale is set.
pub fn is_utf8() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    locale.is_none_or(|locale| {
        let locale = locale.to_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Returns the text with every control character but newline and tab replaced by U+FFFD. Texts contain
/// names and records of others, whose escape sequences could retitle the terminal, hide lines or
/// write to the clipboard.
pub fn printable(text: &str) -> String {
    let replaced = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(replaced).collect()
}

/// Returns the text with box-drawing characters and symbols replaced by ASCII.
pub fn to_ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '✔' => ascii.push_str("ok"),
            '✖' => ascii.push_str("FAILED"),
            '→' => ascii.push_str("->"),
            '…' => ascii.push_str("..."),
            '\u{fffd}' => ascii.push('?'),
            '─' | '═' | '╌' => ascii.push('-'),
            '│' | '┆' => ascii.push('|'),
            // The other characters of the block "Box Drawing" are corners and junctions.
            '\u{2500}'..='\u{257f}' => ascii.push('+'),
            c => ascii.push(c),
        }
    }
    ascii
}

/// Colours the sign that a line begins with: the results of checks and the changes of a plan.
pub fn colour_line(line: &str) -> String {
    let sign = line.split_whitespace().next().unwrap_or_default();
    let code = match sign {
        "✔" | "+" => "32",
        "✖" | "!" => "31",
        "~" | "-/+" => "33",
        // Items of a list also begin with `-`, but only a line of a plan continues with `delete`.
        "-" if line.trim_start().starts_with("- delete") => "31",
        _ => return line.to_string(),
    };
    line.replacen(sign, &format!("\x1b[{code}m{sign}\x1b[0m"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_keeps_letters_and_replaces_boxes_and_signs() {
        assert_eq!(to_ascii("┌──┬──┐ ✔ größe 2 → 4 ╞══╡"), "+--+--+ ok größe 2 -> 4 +--+");
    }

    #[test]
    fn no_control_character_but_newline_and_tab_is_printable() {
        let title = "a\x1b]0;title\x07b\x1b[31m\r\x7f\u{9b}2J\n\tö";
        assert_eq!(
            printable(title),
            "a\u{fffd}]0;title\u{fffd}b\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}2J\n\tö"
        );
        assert_eq!(to_ascii(&printable("\x1b")), "?");
    }

    #[test]
    fn only_signs_are_coloured() {
        assert_eq!(colour_line("  ~ update x"), "  \x1b[33m~\x1b[0m update x");
        assert_eq!(colour_line("- a list"), "- a list");
        assert_eq!(colour_line("plain"), "plain");
    }
}

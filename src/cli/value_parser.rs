//! Parsers of flag values.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Returns a parser of the whole numbers of a range.
pub fn whole_number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text: &str| {
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            format!("expected a whole number from {} to {}", range.start(), range.end())
        })
    }
}

/// Parses a number such as `2` or `0.5`.
///
/// # Errors
/// The text is not a number.
pub fn parse_number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "expected a number such as 2 or 0.5".into())
}

/// Parses `90s`, `15m`, `2h` or `500ms`; a bare number is seconds.
///
/// # Errors
/// The text is not a duration of this form.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || "expected a duration such as 90s, 15m or 2h".to_string();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().map_err(|_| invalid())?;
    let seconds = match &text[split..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(invalid()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_in_their_range() {
        let parse = whole_number(1u32..=500);
        assert_eq!(parse("500"), Ok(500));
        for invalid in ["0", "501", "1.5", "x", "-1", ""] {
            assert_eq!(parse(invalid), Err("expected a whole number from 1 to 500".into()));
        }
    }

    #[test]
    fn parses_durations_with_their_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        for invalid in ["", "m", "5 weeks", "-1s"] {
            assert!(parse_duration(invalid).is_err(), "`{invalid}` was accepted");
        }
    }
}

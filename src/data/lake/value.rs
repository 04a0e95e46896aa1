//! Numbers and times in the strings of records, by the rules of `docs/records.md`.

use chrono::{Datelike, NaiveDate};

/// 1970-01-01, in days since the day before 0001-01-01.
const EPOCH_DAYS: i64 = 719_163;
const SECOND_US: i64 = 1_000_000;
/// 0001-01-01 00:00:00, in microseconds since the epoch.
const MIN_TIME_US: i64 = -62_135_596_800 * SECOND_US;
/// 9999-12-31 23:59:59.999999, in microseconds since the epoch.
const MAX_TIME_US: i64 = 253_402_300_800 * SECOND_US - 1;

/// Parses a finite number: `[+-]?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?`.
pub fn parse_number(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    // The parser of the standard library accepts the same, and also `inf`, `nan`, `.5` and `5.`.
    let has_form = bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'0'..=b'9' | b'+' | b'-' | b'e' | b'E' => true,
        b'.' => at > 0 && is_digit(at - 1) && is_digit(at + 1),
        _ => false,
    });
    if !has_form {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Parses a 32-bit integer: a number without a fraction.
pub fn parse_integer(text: &str) -> Option<i64> {
    match text.parse::<i32>() {
        Ok(number) => Some(number.into()),
        Err(_) => parse_number(text).and_then(whole_number),
    }
}

/// Returns a number without a fraction as a 32-bit integer.
pub fn whole_number(number: f64) -> Option<i64> {
    let range = f64::from(i32::MIN)..=f64::from(i32::MAX);
    (number.fract() == 0.0 && range.contains(&number)).then_some(number as i64)
}

/// Parses a time such as `2022-05-27 11:30:59` to microseconds since the epoch, in UTC. Also parses
/// RFC 3339, and a date, which means midnight. Digits beyond microseconds are dropped.
pub fn parse_time(text: &str) -> Option<i64> {
    let (date, rest) = text.as_bytes().split_at_checked(10)?;
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    let year = digits(&date[..4])?;
    let day =
        NaiveDate::from_ymd_opt(year.cast_signed(), digits(&date[5..7])?, digits(&date[8..])?)?;
    let days = i64::from(day.num_days_from_ce()) - EPOCH_DAYS;
    let clock_us = if rest.is_empty() { 0 } else { parse_clock(rest)? };
    let time_us = days * 24 * 3600 * SECOND_US + clock_us;
    (MIN_TIME_US..=MAX_TIME_US).contains(&time_us).then_some(time_us)
}

/// Parses what follows a date to microseconds since midnight UTC of this date. An offset can make
/// them negative, or more than a day.
fn parse_clock(text: &[u8]) -> Option<i64> {
    let (clock, rest) = text.split_at_checked(9)?;
    if !matches!(clock[0], b' ' | b'T' | b't') || clock[3] != b':' || clock[6] != b':' {
        return None;
    }
    let seconds = clock_seconds(&clock[1..3], &clock[4..6])? + below(&clock[7..], 60)?;
    let (fraction, zone) = match rest {
        [b'.', rest @ ..] => {
            let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            rest.split_at_checked(length).filter(|(fraction, _)| !fraction.is_empty())?
        }
        _ => (&[][..], rest),
    };
    let fraction_us = (0..6).fold(0, |value, at| {
        value * 10 + fraction.get(at).map_or(0, |digit| i64::from(digit - b'0'))
    });
    let offset_seconds = match zone {
        [] | [b'Z' | b'z'] => 0,
        [b'+', hours @ .., b':', tens, ones] => clock_seconds(hours, &[*tens, *ones])?,
        [b'-', hours @ .., b':', tens, ones] => -clock_seconds(hours, &[*tens, *ones])?,
        _ => return None,
    };
    Some((seconds - offset_seconds) * SECOND_US + fraction_us)
}

/// Returns the seconds of hours up to 23 and minutes up to 59, of two digits each.
fn clock_seconds(hours: &[u8], minutes: &[u8]) -> Option<i64> {
    Some(below(hours, 24)? * 3600 + below(minutes, 60)? * 60)
}

/// Parses two digits to a number below `limit`.
fn below(text: &[u8], limit: i64) -> Option<i64> {
    let number = (text.len() == 2).then(|| digits(text))??;
    Some(i64::from(number)).filter(|number| *number < limit)
}

/// Parses at most nine digits.
fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn parses_numbers_of_one_grammar() {
        for (text, number) in [
            ("1.5", 1.5),
            ("-2", -2.0),
            ("+007.50", 7.5),
            ("1e2", 100.0),
            ("1.5E-1", 0.15),
            ("36.0", 36.0),
        ] {
            assert_eq!(parse_number(text), Some(number), "`{text}`");
        }
        for text in [
            "", " 1", "1 ", ".5", "1.", "1.e5", "1e", "e5", "nan", "inf", "1.5d", "0x1", "1e400",
            "1,5",
        ] {
            assert_eq!(parse_number(text), None, "`{text}`");
        }
        assert_eq!(parse_integer("36.0"), Some(36));
        assert_eq!(parse_integer("-2147483648"), Some(-2_147_483_648));
        assert_eq!(parse_integer("3.6e1"), Some(36));
        for text in ["2147483648", "1.5", "", "3000000000.0", "-"] {
            assert_eq!(parse_integer(text), None, "`{text}`");
        }
    }

    #[test]
    fn parses_times_to_microseconds_in_utc() {
        for (text, expected) in [
            ("2022-05-27 11:30:59", "2022-05-27T11:30:59Z"),
            ("2022-05-27T11:30:59", "2022-05-27T11:30:59Z"),
            ("2022-05-27t11:30:59z", "2022-05-27T11:30:59Z"),
            ("2020-02-29", "2020-02-29T00:00:00Z"),
            ("2022-12-31 23:59:59.123456", "2022-12-31T23:59:59.123456Z"),
            ("2022-12-31 23:59:59.1234567", "2022-12-31T23:59:59.123456Z"),
            ("2020-05-01T10:00:00.000Z", "2020-05-01T10:00:00Z"),
            ("2020-05-01T10:00:00.5+02:00", "2020-05-01T08:00:00.5Z"),
            ("2020-12-31 23:30:00-01:30", "2021-01-01T01:00:00Z"),
            ("9999-12-31 23:59:59", "9999-12-31T23:59:59Z"),
            ("1600-01-01 00:00:00", "1600-01-01T00:00:00Z"),
            ("0001-01-01 00:00:00", "0001-01-01T00:00:00Z"),
        ] {
            let expected = DateTime::parse_from_rfc3339(expected).expect("a time");
            assert_eq!(parse_time(text), Some(expected.timestamp_micros()), "`{text}`");
        }
    }

    #[test]
    fn rejects_what_is_not_a_time() {
        for text in [
            "",
            "2022-05",
            "2019-5-7 1:02:03",
            " 2019-05-27 11:30:59",
            "2019-05-27 11:30:59 ",
            "2019-02-29 00:00:00",
            "2022-13-01 00:00:00",
            "2022-05-27 24:00:00",
            "2022-05-27 11:60:00",
            "2022-05-27 11:30:60",
            "2022-05-27 11:30",
            "2022-05-27T",
            "2022-05-27 11:30:59.",
            "2022-05-27 11:30:59.Z",
            "2022-05-27 11:30:59+02",
            "2022-05-27 11:30:59+0200",
            "2022-05-27 11:30:59+24:00",
            "2022-05-27 11:30:59+002:00",
            "2022-05-27_11:30:59",
            "２022-05-27 11:30:5",
            "0000-01-01 00:00:00",
            "0001-01-01 00:00:00+00:01",
            "9999-12-31 23:59:59-00:01",
            "1588327200",
            "1588327200000",
        ] {
            assert_eq!(parse_time(text), None, "`{text}`");
        }
    }
}

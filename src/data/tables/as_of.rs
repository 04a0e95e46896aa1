//! An earlier state of the tables.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

/// A version of each table, or the state at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    Version(u64),
    Time(DateTime<Utc>),
}

impl FromStr for AsOf {
    type Err = String;

    /// `12`, `2026-11-21T10:00:00Z`, `2026-11-21 10:00:00` or `2026-11-21`, in UTC where nothing else is said.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(version) = text.parse() {
            return Ok(Self::Version(version));
        }
        let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let plain = || {
            ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
                .iter()
                .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        };
        let day = || {
            NaiveDate::parse_from_str(text, "%Y-%m-%d")
                .ok()
                .and_then(|day| day.and_hms_opt(0, 0, 0))
        };
        let time = zoned
            .ok()
            .or_else(|| plain().or_else(day).map(|time| time.and_utc()));
        time.map(Self::Time).ok_or_else(|| {
            format!(
                "`{text}` is neither a version such as 3 nor a time such as 2026-11-21T10:00:00Z"
            )
        })
    }
}

impl AsOf {
    /// Whether a time lies before this one, in milliseconds since 1970. A version lies before none.
    pub fn is_before(self, moment_ms: Option<i64>) -> bool {
        matches!((self, moment_ms), (Self::Time(time), Some(moment_ms)) if time.timestamp_millis() < moment_ms)
    }
}

impl std::fmt::Display for AsOf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(version) => write!(formatter, "version {version}"),
            Self::Time(time) => write!(formatter, "{}", time.to_rfc3339()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_times_are_told_apart() {
        assert_eq!("12".parse(), Ok(AsOf::Version(12)));
        let time: AsOf = "2026-11-21T10:00:00Z".parse().expect("a time");
        assert_eq!("2026-11-21 10:00:00".parse(), Ok(time));
        assert_eq!("2026-11-21T12:00:00+02:00".parse(), Ok(time));
        assert!(matches!("2026-11-21".parse(), Ok(AsOf::Time(_))));
        assert!("yesterday".parse::<AsOf>().is_err());
    }
}

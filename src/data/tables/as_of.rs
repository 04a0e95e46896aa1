//! Time travel: the version or the timestamp at which tables are read.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

/// A version number, or a point in time, at which each table is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    Version(u64),
    Time(DateTime<Utc>),
}

impl FromStr for AsOf {
    type Err = String;

    /// Parses `12`, `2026-11-21T10:00:00Z`, `2026-11-21 10:00:00` or `2026-11-21`. A time without
    /// an offset is in UTC.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(version) = text.parse() {
            return Ok(Self::Version(version));
        }
        let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let without_offset = || {
            ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
                .iter()
                .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        };
        let day = || {
            NaiveDate::parse_from_str(text, "%Y-%m-%d")
                .ok()
                .and_then(|day| day.and_hms_opt(0, 0, 0))
        };
        let time = zoned.ok().or_else(|| without_offset().or_else(day).map(|time| time.and_utc()));
        time.map(Self::Time).ok_or_else(|| {
            format!(
                "expected a version such as 3 or a time such as 2026-11-21T10:00:00Z, got `{text}`"
            )
        })
    }
}

impl AsOf {
    /// Whether this is a time earlier than `moment_ms`, in milliseconds since 1970. Always `false`
    /// for a version, or if `moment_ms` is `None`.
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
    fn parses_versions_and_times() {
        assert_eq!("12".parse(), Ok(AsOf::Version(12)));
        let time: AsOf = "2026-11-21T10:00:00Z".parse().expect("valid time");
        assert_eq!("2026-11-21 10:00:00".parse(), Ok(time));
        assert_eq!("2026-11-21T12:00:00+02:00".parse(), Ok(time));
        assert!(matches!("2026-11-21".parse(), Ok(AsOf::Time(_))));
        assert!("yesterday".parse::<AsOf>().is_err());
    }
}

//! Time travel: clean tables of batch as of an earlier version or time. Only Delta tables support
//! it.

use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use datafusion::catalog::TableProvider;
use deltalake::DeltaTable;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::data::tables::clean_table::TableNamespace;
use crate::data::tables::delta::DeltaLocation;

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
    fn is_before(self, moment_ms: Option<i64>) -> bool {
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

/// A clean table at an earlier version.
pub struct EarlierTable {
    pub kind: Kind,
    /// Path or URL of the table, for messages.
    pub name: String,
    pub version: u64,
    pub provider: Arc<dyn TableProvider>,
}

/// Opens the clean tables of batch as of a version or a time.
///
/// # Errors
/// A table does not exist, or did not exist in this version or at this time.
pub async fn open_as_of(config: &Config, as_of: AsOf) -> Result<Vec<EarlierTable>> {
    let mut locations = Vec::new();
    for kind in Kind::ALL {
        let location =
            DeltaLocation::open(config, TableNamespace::Batch, &kind.clean_table(&config.id))
                .await?;
        location.check_access().await?;
        let newest = location.load().await?.and_then(|table| table.version());
        locations.push((kind, location, newest));
    }
    // Each table has its own version numbers. If only some tables have the requested version, the
    // others are read at their newest version.
    let newest_of_all = locations.iter().filter_map(|(_, _, newest)| *newest).max();
    let mut tables = Vec::new();
    for (kind, location, newest) in locations {
        let as_of = match (as_of, newest) {
            (AsOf::Version(version), Some(newest))
                if newest_of_all.is_some_and(|newest_version| version <= newest_version) =>
            {
                AsOf::Version(version.min(newest))
            }
            _ => as_of,
        };
        let table = location.load_as_of(as_of).await?;
        tables.push(EarlierTable {
            kind,
            provider: location.provider_of(&table).await?,
            name: location.name,
            version: table.version().unwrap_or_default(),
        });
    }
    Ok(tables)
}

impl DeltaLocation {
    /// Loads an earlier version of the table.
    ///
    /// # Errors
    /// The table does not exist, or did not exist in this version or at this time.
    async fn load_as_of(&self, as_of: AsOf) -> Result<DeltaTable> {
        let builder = self.builder("open")?;
        let builder = match as_of {
            AsOf::Version(version) => builder.with_version(version),
            AsOf::Time(time) => builder.with_timestamp(time),
        };
        let hint = "run `pinpipe batch --output json` to see the newest version of each table; versions whose files `--optimize` deleted cannot be read";
        match self.load_with(builder).await {
            // For a time before the first version, the library returns the first version.
            Ok(Some(table)) if as_of.is_before(committed_ms(&table)) => {
                Err(Error::failed(format!(
                    "cannot read the Delta table `{}` as of {as_of}: its first version is later",
                    self.name
                ))
                .hint(hint))
            }
            Ok(Some(table)) => Ok(table),
            Ok(None) => Err(Error::failed(format!(
                "cannot read the Delta table `{}` as of {as_of}: it does not exist",
                self.name
            ))
            .hint(hint)),
            // The source of the error names the table.
            Err(error) => Err(Error::failed(format!("cannot read the tables as of {as_of}"))
                .with_source(error)
                .hint(hint)),
        }
    }
}

/// Commit time of the loaded version, in milliseconds since 1970.
fn committed_ms(table: &DeltaTable) -> Option<i64> {
    table.snapshot().ok()?.version_timestamp(table.version()?)
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

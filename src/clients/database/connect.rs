//! Connecting, the three dialects, and what a database error means to a person.

use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use crate::base::config::schema::Config;
use crate::base::config::secret::redacted;
use crate::base::error::{Error, Result};
use crate::base::model::{Column, ColumnType, Kind};

/// A pool of connections to one kind of database.
pub enum Database {
    Sqlite(SqlitePool),
    MySql(MySqlPool),
    Postgres(PgPool),
}

/// Runs the same code on whichever pool there is.
macro_rules! on_pool {
    ($database:expr, $pool:ident => $body:expr) => {
        match $database {
            $crate::clients::database::connect::Database::Sqlite($pool) => $body,
            $crate::clients::database::connect::Database::MySql($pool) => $body,
            $crate::clients::database::connect::Database::Postgres($pool) => $body,
        }
    };
}
pub(super) use on_pool;

impl Database {
    /// Connects to the configured database. `create`: an SQLite file that is not there is made.
    ///
    /// # Errors
    /// Says which database and why, never the password.
    pub async fn connect(config: &Config, create: bool) -> Result<Self> {
        let url = config.endpoints().database_url()?;
        let url = url.expose_secret();
        let shown = redacted(url);
        let timeout = Duration::from_millis(config.database.connect_timeout_ms);
        let most = config.database.max_connections;
        if let Some(path) = url
            .strip_prefix("sqlite://")
            .or_else(|| url.strip_prefix("sqlite:"))
        {
            let file = std::path::Path::new(path.split('?').next().unwrap_or(path));
            if !create && !file.exists() {
                return Err(
                    Error::failed(format!("there is no database `{}`", file.display())).hint(
                        "`pinpipe seed` makes and fills one, or name another with `database.url`",
                    ),
                );
            }
            if create && let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|error| crate::base::error::io_error("create", folder, error))?;
            }
        }
        let connected = async {
            match url.split(':').next() {
                Some("sqlite") => {
                    let options = SqliteConnectOptions::from_str(url)?
                        .create_if_missing(create)
                        .busy_timeout(timeout);
                    let options = if create {
                        options
                            .journal_mode(SqliteJournalMode::Wal)
                            .synchronous(SqliteSynchronous::Normal)
                    } else {
                        options
                    };
                    let options = options.disable_statement_logging();
                    sqlx::SqliteConnection::connect_with(&options)
                        .await?
                        .close()
                        .await?;
                    Ok(Self::Sqlite(
                        SqlitePoolOptions::new()
                            .max_connections(most)
                            .acquire_timeout(timeout)
                            .connect_lazy_with(options),
                    ))
                }
                Some("postgres" | "postgresql") => {
                    let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
                    sqlx::PgConnection::connect_with(&options)
                        .await?
                        .close()
                        .await?;
                    Ok(Self::Postgres(
                        PgPoolOptions::new()
                            .max_connections(most)
                            .acquire_timeout(timeout)
                            .connect_lazy_with(options),
                    ))
                }
                _ => {
                    let options = MySqlConnectOptions::from_str(url)?
                        .charset("utf8mb4")
                        .disable_statement_logging();
                    sqlx::MySqlConnection::connect_with(&options)
                        .await?
                        .close()
                        .await?;
                    Ok(Self::MySql(
                        MySqlPoolOptions::new()
                            .max_connections(most)
                            .acquire_timeout(timeout)
                            .connect_lazy_with(options),
                    ))
                }
            }
        };
        // One connection first: a pool would only say that it waited too long.
        match tokio::time::timeout(timeout, connected).await {
            Ok(Ok(database)) => Ok(database),
            Ok(Err(error)) => Err(explain(&format!("cannot connect to the database `{shown}`"), &error)),
            Err(_) => Err(Error::failed(format!("cannot connect to the database `{shown}`: no answer within {} ms", timeout.as_millis()))
                .hint("check host, port and firewall; `database.connect_timeout_ms` sets how long to wait")),
        }
    }

    /// An identifier between the quotes of this dialect.
    pub fn quoted(&self, name: &str) -> String {
        match self {
            // SQLite would take an unknown name between double quotes for a text.
            Self::MySql(_) | Self::Sqlite(_) => format!("`{name}`"),
            Self::Postgres(_) => format!("\"{name}\""),
        }
    }

    /// A column read as the type the records have, whatever the table declares.
    pub fn selected(&self, column: &Column, prefix: &str) -> String {
        let name = format!("{prefix}{}", self.quoted(column.0));
        match (self, column.1) {
            (Self::Sqlite(_), ColumnType::Integer) => format!("CAST({name} AS INTEGER)"),
            (Self::Sqlite(_), ColumnType::Float) => format!("CAST({name} AS REAL)"),
            (Self::Sqlite(_), ColumnType::Text) => format!("CAST({name} AS TEXT)"),
            (Self::Sqlite(_), ColumnType::DateTime) => {
                format!("strftime('%Y-%m-%d %H:%M:%S', {name})")
            }
            (Self::MySql(_), ColumnType::Integer) => format!("CAST({name} AS SIGNED)"),
            (Self::MySql(_), ColumnType::Float) => format!("CAST({name} AS DOUBLE)"),
            (Self::MySql(_), ColumnType::Text) => format!("CAST({name} AS CHAR)"),
            (Self::MySql(_), ColumnType::DateTime) => {
                format!("DATE_FORMAT({name}, '%Y-%m-%d %H:%i:%s')")
            }
            (Self::Postgres(_), ColumnType::Integer) => format!("CAST({name} AS BIGINT)"),
            (Self::Postgres(_), ColumnType::Float) => format!("CAST({name} AS DOUBLE PRECISION)"),
            (Self::Postgres(_), ColumnType::Text) => format!("CAST({name} AS TEXT)"),
            (Self::Postgres(_), ColumnType::DateTime) => {
                format!("to_char(CAST({name} AS TIMESTAMP), 'YYYY-MM-DD HH24:MI:SS')")
            }
        }
    }

    /// The statement that makes a source table.
    pub fn create_table(&self, kind: Kind) -> String {
        let columns = kind.columns().iter().map(|(name, column_type)| {
            let declared = match (self, column_type) {
                (_, ColumnType::Integer) => "BIGINT",
                (Self::Sqlite(_), ColumnType::Float) => "REAL",
                (Self::MySql(_), ColumnType::Float) => "DOUBLE",
                (Self::Postgres(_), ColumnType::Float) => "DOUBLE PRECISION",
                (_, ColumnType::Text) => "TEXT",
                (Self::Postgres(_), ColumnType::DateTime) => "TIMESTAMP",
                (_, ColumnType::DateTime) => "DATETIME",
            };
            format!("{} {declared}", self.quoted(name))
        });
        let key = self.quoted(kind.row_number_column());
        let ending = if matches!(self, Self::MySql(_)) {
            " CHARACTER SET utf8mb4"
        } else {
            ""
        };
        format!(
            "CREATE TABLE {} ({}, PRIMARY KEY ({key})){ending}",
            kind.source_table(),
            columns.collect::<Vec<_>>().join(", ")
        )
    }
}

/// Whether an error says that a table is not there, in any of the three dialects.
pub fn is_missing_table(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else {
        return false;
    };
    matches!(error.code().as_deref(), Some("42P01" | "42S02"))
        || error.message().contains("no such table")
}

/// A database error for people: the cause, and what to do about the common ones.
pub fn explain(action: &str, error: &sqlx::Error) -> Error {
    let code = error
        .as_database_error()
        .and_then(|error| error.code())
        .unwrap_or_default()
        .to_string();
    let text = error.to_string();
    let hint = match (error, code.as_str()) {
        (_, "28P01" | "28000" | "1045") => {
            "check the user name in `database.url` and the password in PINPIPE_DATABASE_PASSWORD"
        }
        (_, "3D000" | "42000") if text.contains("nknown database") || code == "3D000" => {
            "that database does not exist on the server: create it, or correct the name at the end of `database.url`"
        }
        (_, "42P01" | "42S02") => {
            "a table of the pipeline is missing: `pinpipe seed` makes and fills all three"
        }
        (_, "42703" | "42S22") => {
            "a column of the pipeline is missing: `pinpipe seed --replace` makes the tables anew"
        }
        (sqlx::Error::Database(_), "1") if text.contains("no such table") => {
            "a table of the pipeline is missing: `pinpipe seed` makes and fills all three"
        }
        (sqlx::Error::Database(_), "13") => {
            "the disk is full: free some space, then run the same command again"
        }
        (sqlx::Error::Database(_), "14" | "8" | "1032") => {
            "the file or its folder cannot be written: check its permissions, or choose another folder with `--data-dir`"
        }
        (sqlx::Error::Database(_), "26" | "11") => {
            "the file is no SQLite database, or a damaged one: move it away, then `pinpipe seed`"
        }
        (sqlx::Error::Io(_), _) => {
            "is the server up, and are host and port in `database.url` right?"
        }
        (sqlx::Error::PoolTimedOut, _) => {
            "the server takes no more connections, or does not answer: `database.max_connections` bounds what is opened here"
        }
        (sqlx::Error::Configuration(_), _) => {
            "a database URL looks like mysql://USER@HOST:3306/NAME"
        }
        _ => "`pinpipe doctor` tests every connection",
    };
    Error::failed(action).with_source(text).hint(hint)
}

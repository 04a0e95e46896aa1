//! Connections, the three SQL dialects, and database errors with hints.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use url::Url;

use crate::base::config::data_dir;
use crate::base::config::schema::Config;
use crate::base::config::secret::redacted;
use crate::base::error::{Error, Result, io_error};
use crate::base::model::{Column, ColumnType, Kind};
use crate::clients::loopback::is_loopback;

/// A connection pool of one of the three dialects.
pub enum Database {
    Sqlite(SqlitePool),
    MySql(MySqlPool),
    Postgres(PgPool),
}

/// Access mode of a SQLite file. On a server, the permissions of the database user apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads an existing file, and creates no WAL or journal file.
    ReadOnly,
    /// Reads and writes an existing file.
    Existing,
    /// Creates a missing file.
    Create,
}

/// Runs the same code on the pool of any dialect.
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
    /// Connects to the configured database.
    ///
    /// # Errors
    /// The SQLite file does not exist or cannot be read; the connection fails or times out. The
    /// error names the database and never contains the password.
    pub async fn connect(config: &Config, access: Access) -> Result<Self> {
        let url = config.endpoints().database_url()?;
        let url = url.expose_secret();
        let shown = redacted(url);
        let timeout = Duration::from_millis(config.database.connect_timeout_ms);
        let max_connections = config.database.max_connections;
        let mut is_immutable = false;
        if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
            let file = Path::new(path.split('?').next().unwrap_or(path));
            if access == Access::Create && config.database.url.expose_secret().is_empty() {
                data_dir::create(&config.data_dir)?;
            }
            prepare_file(file, access)?;
            is_immutable = access == Access::ReadOnly && !has_log(file);
        }
        let connect = async {
            match url.split(':').next() {
                Some("sqlite") => {
                    let options = SqliteConnectOptions::from_str(url)?
                        .create_if_missing(access == Access::Create)
                        .read_only(access == Access::ReadOnly)
                        .immutable(is_immutable)
                        .busy_timeout(timeout);
                    let options = if access == Access::Create {
                        options
                            .journal_mode(SqliteJournalMode::Wal)
                            .synchronous(SqliteSynchronous::Normal)
                    } else {
                        options
                    };
                    let options = options.disable_statement_logging();
                    sqlx::SqliteConnection::connect_with(&options).await?.close().await?;
                    Ok(Self::Sqlite(
                        SqlitePoolOptions::new()
                            .max_connections(max_connections)
                            .acquire_timeout(timeout)
                            .connect_lazy_with(options),
                    ))
                }
                Some("postgres" | "postgresql") => {
                    let options = postgres_options(url)?.disable_statement_logging();
                    sqlx::PgConnection::connect_with(&options).await?.close().await?;
                    Ok(Self::Postgres(
                        PgPoolOptions::new()
                            .max_connections(max_connections)
                            .acquire_timeout(timeout)
                            .connect_lazy_with(options),
                    ))
                }
                _ => {
                    let options =
                        mysql_options(url)?.charset("utf8mb4").disable_statement_logging();
                    sqlx::MySqlConnection::connect_with(&options).await?.close().await?;
                    Ok(Self::MySql(
                        MySqlPoolOptions::new()
                            .max_connections(max_connections)
                            .acquire_timeout(timeout)
                            .connect_lazy_with(options),
                    ))
                }
            }
        };
        // A single connection is opened first, because a pool would report only a timeout.
        match tokio::time::timeout(timeout, connect).await {
            Ok(Ok(database)) => Ok(database),
            Ok(Err(error)) => {
                Err(explain(&format!("cannot connect to the database `{shown}`"), &error))
            }
            Err(_) => Err(Error::failed(format!(
                "cannot connect to the database `{shown}`: no response within {} ms",
                timeout.as_millis()
            ))
            .hint("check host, port and firewall, or raise `database.connect_timeout_ms`")),
        }
    }

    /// Quotes an identifier in this dialect.
    pub fn quoted(&self, name: &str) -> String {
        match self {
            // SQLite treats an unknown name in double quotes as a string literal.
            Self::MySql(_) | Self::Sqlite(_) => format!("`{name}`"),
            Self::Postgres(_) => format!("\"{name}\""),
        }
    }

    /// Returns the expression that casts a column to its type in records, because a table may
    /// declare another type.
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

    /// Returns the statement that creates a table with the columns of a source table.
    pub fn create_table(&self, kind: Kind, table: &str) -> String {
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
        let ending = if matches!(self, Self::MySql(_)) { " CHARACTER SET utf8mb4" } else { "" };
        format!(
            "CREATE TABLE {table} ({}, PRIMARY KEY ({key})){ending}",
            columns.collect::<Vec<_>>().join(", ")
        )
    }
}

/// Returns the options of a URL. Beyond this machine, the certificate of the server is verified
/// unless the URL chooses another mode: the library's own default, `prefer`, sends the password in
/// plain text to a server that offers no TLS.
fn postgres_options(url: &str) -> sqlx::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)?;
    let is_verified =
        options.get_socket().is_none() && is_remote(options.get_host()) && !chooses_tls_mode(url);
    Ok(if is_verified { options.ssl_mode(PgSslMode::VerifyFull) } else { options })
}

/// Returns the options of a URL, as [`postgres_options`] does.
fn mysql_options(url: &str) -> sqlx::Result<MySqlConnectOptions> {
    let options = MySqlConnectOptions::from_str(url)?;
    let is_verified =
        options.get_socket().is_none() && is_remote(options.get_host()) && !chooses_tls_mode(url);
    Ok(if is_verified { options.ssl_mode(MySqlSslMode::VerifyIdentity) } else { options })
}

/// Whether a connection leaves this machine. A host that is a path is the folder of a socket.
fn is_remote(host: &str) -> bool {
    !host.starts_with('/') && !is_loopback(host)
}

fn chooses_tls_mode(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| {
        url.query_pairs().any(|(name, _)| matches!(&*name, "sslmode" | "ssl-mode"))
    })
}

/// Whether a server offered no TLS, or a certificate that was not accepted.
fn is_tls_failure(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()),
        _ => false,
    }
}

/// Creates the folder of a SQLite file, or checks that the file exists.
fn prepare_file(file: &Path, access: Access) -> Result<()> {
    if access == Access::Create {
        return match file.parent() {
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))
            }
            None => Ok(()),
        };
    }
    // SQLite reports an unreadable file and a missing file alike, so the file is opened here.
    match std::fs::File::open(file) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::failed(format!("database `{}` does not exist", file.display())).hint(
                "run `pinpipe seed` to create and fill it, or set `database.url` to another \
                 database",
            ))
        }
        Err(error) => Err(io_error("read", file, error)),
    }
}

/// Whether SQLite has a WAL or journal file for this file, because another process uses it or a
/// transaction was interrupted. Without one, the file can be opened as immutable; otherwise SQLite
/// creates such files even for a read.
fn has_log(file: &Path) -> bool {
    ["-wal", "-journal"].iter().any(|ending| {
        let mut log = file.as_os_str().to_os_string();
        log.push(ending);
        Path::new(&log).exists()
    })
}

/// Returns true if the error means that a table does not exist, in any of the three dialects.
pub fn is_missing_table(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else {
        return false;
    };
    matches!(error.code().as_deref(), Some("42P01" | "42S02"))
        || error.message().contains("no such table")
}

/// Converts a database error into an error with its cause, and with a hint for common causes.
pub fn explain(action: &str, error: &sqlx::Error) -> Error {
    let code =
        error.as_database_error().and_then(|error| error.code()).unwrap_or_default().to_string();
    // Omits the prefix that the library adds to these errors.
    let text = match error {
        sqlx::Error::Database(error) => error.message().to_string(),
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::PoolTimedOut => "no connection was available in time".to_string(),
        error => error.to_string(),
    };
    let hint = match (error, code.as_str()) {
        _ if is_tls_failure(error) => {
            "add the file with the certificate of the server's authority to `database.url`: \
             `?sslrootcert=FILE` (PostgreSQL) or `?ssl-ca=FILE` (MySQL); `?sslmode=prefer` or \
             `?ssl-mode=preferred` accepts any server, and none of TLS"
        }
        (_, "28P01" | "28000" | "1045") => {
            "check the user name in `database.url` and the password in PINPIPE_DATABASE_PASSWORD"
        }
        (_, "3D000" | "42000") if text.contains("nknown database") || code == "3D000" => {
            "the database does not exist on the server: create it, or correct the name at the \
             end of `database.url`"
        }
        (_, "42P01" | "42S02") => {
            "a table of the pipeline is missing: run `pinpipe seed` to create and fill all three"
        }
        (_, "42703" | "42S22") => {
            "a column of the pipeline is missing: run `pinpipe seed --replace` to recreate \
             the tables"
        }
        (sqlx::Error::Database(_), "1") if text.contains("no such table") => {
            "a table of the pipeline is missing: run `pinpipe seed` to create and fill all three"
        }
        (sqlx::Error::Database(_), "13") => {
            "the disk is full: free some space, then re-run the command"
        }
        (sqlx::Error::Database(_), "14" | "8" | "1032") => {
            "the file or its folder is not writable: check its permissions, or choose another \
             folder with `--data-dir`"
        }
        (sqlx::Error::Database(_), "26" | "11") => {
            "the file is damaged or not a SQLite database: move it away, then run `pinpipe seed`"
        }
        (sqlx::Error::Io(_), _) => {
            "check that the server is up and that host and port in `database.url` are correct"
        }
        (sqlx::Error::PoolTimedOut, _) => {
            "the server does not respond or accepts no more connections: check the server, or \
             lower `database.max_connections`"
        }
        (sqlx::Error::Configuration(_), _) => {
            "correct `database.url`: expected a URL such as mysql://USER@HOST:3306/NAME"
        }
        _ => "run `pinpipe doctor` to test every connection",
    };
    Error::failed(action).with_source(text).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_beyond_this_machine_are_verified_unless_the_url_says_otherwise() {
        for (address, is_verified) in [
            ("me@db.example.com/x", true),
            ("me@db.example.com:1/x?sslrootcert=ca.pem", true),
            ("me@127.0.0.1.example.com/x", true),
            ("me@db.example.com/x?sslmode=disable", false),
            ("me@db.example.com/x?ssl-mode=disable", false),
            ("me@127.0.0.1:1/x", false),
            ("me@[::1]/x", false),
            ("me@localhost/x?host=/run/postgresql", false),
        ] {
            let options = postgres_options(&format!("postgres://{address}")).expect("a valid URL");
            let found = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
            assert_eq!(found, is_verified, "postgres://{address}");
            let address = address.replace("=disable", "=disabled");
            let options = mysql_options(&format!("mysql://{address}")).expect("a valid URL");
            let found = matches!(options.get_ssl_mode(), MySqlSslMode::VerifyIdentity);
            assert_eq!(found, is_verified, "mysql://{address}");
        }
    }

    #[test]
    fn hints_at_the_certificate_if_tls_fails() {
        let rejected = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let rejected =
            sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, rejected));
        for error in [rejected, sqlx::Error::Tls("server does not support TLS".into())] {
            let error = explain("cannot connect", &error);
            assert!(error.hint_text().is_some_and(|hint| hint.contains("sslrootcert")), "{error}");
        }
    }
}

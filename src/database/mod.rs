//! The source database of posts: SQLite, MySQL, MariaDB or PostgreSQL.

mod connect;
mod generate;
mod load;
mod read;
mod seed;
mod words;
mod write;

pub use connect::Database;
pub use seed::{SeedArguments, has_posts, seed};

use crate::record::Kind;

/// One value of a row on its way in.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Integer(i64),
    Float(f64),
    Text(String),
    DateTime(chrono::NaiveDateTime),
}

/// Rows of one table, in the order of its columns.
pub struct Rows {
    pub kind: Kind,
    pub rows: Vec<Vec<Cell>>,
}

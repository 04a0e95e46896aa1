//! The source database of posts: SQLite, MySQL, MariaDB or PostgreSQL.

pub mod connect;
pub mod read;
pub mod write;

use crate::base::model::Kind;

/// One value of a row to insert.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Integer(i64),
    Float(f64),
    Text(String),
    DateTime(chrono::NaiveDateTime),
}

/// Rows of one table. The values are in the order of the columns.
pub struct Rows {
    pub kind: Kind,
    pub rows: Vec<Vec<Cell>>,
}

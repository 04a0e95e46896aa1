//! Reads posts: the rows with the same row number in all three tables.

use std::collections::HashMap;

use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, Row};

use crate::base::error::{Error, Result};
use crate::base::model::{ColumnType, Kind, Post};
use crate::clients::database::connect::{Database, explain, is_missing_table, on_pool};

impl Database {
    /// Returns the row numbers that exist in all three tables, in ascending order.
    ///
    /// # Errors
    /// A table or column does not exist; the error names it.
    pub async fn row_numbers(&self) -> Result<Vec<i64>> {
        for kind in Kind::ALL {
            // One query for each table, so that the error names the missing table.
            let columns: Vec<String> =
                kind.columns().iter().map(|column| self.selected(column, "")).collect();
            let probe =
                format!("SELECT {} FROM {} WHERE 1 = 0", columns.join(", "), kind.source_table());
            on_pool!(self, pool => sqlx::query(AssertSqlSafe(probe)).fetch_all(pool).await.map(|_| ()))
                .map_err(|error| explain(&format!("cannot read table `{}`", kind.source_table()), &error))?;
        }
        let [first, others @ ..] = Kind::ALL;
        let first_number = self.quoted(first.row_number_column());
        let join = |(position, kind): (usize, Kind)| {
            let number = self.quoted(kind.row_number_column());
            let table = kind.source_table();
            format!(" JOIN {table} t{position} ON t{position}.{number} = f.{first_number}")
        };
        let joins: String = others.into_iter().enumerate().map(join).collect();
        let statement = format!(
            "SELECT DISTINCT {} AS n FROM {} f{joins} ORDER BY n",
            self.selected(&first.columns()[0], "f."),
            first.source_table()
        );
        on_pool!(self, pool => sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement)).fetch_all(pool).await)
            .map_err(|error| explain("cannot read the row numbers", &error))
    }

    /// Returns the row numbers of all posts. The list is never empty.
    ///
    /// # Errors
    /// The database contains no posts; the hint names the command that creates some.
    pub async fn require_posts(&self) -> Result<Vec<i64>> {
        let numbers = self.row_numbers().await?;
        if !numbers.is_empty() {
            return Ok(numbers);
        }
        // `seed` keeps existing rows, which may be data of the user.
        Err(if self.total_rows().await? == 0 {
            Error::failed("the database contains no posts")
                .hint("run `pinpipe seed` to fill the tables")
        } else {
            Error::failed(
                "the database contains rows, but no row number exists in all three tables",
            )
            .hint("run `pinpipe seed --replace` to drop the tables and fill new ones")
        })
    }

    /// Returns the posts with these row numbers, in the same order.
    ///
    /// # Errors
    /// A row number is missing in a table; the error lists such row numbers, up to ten.
    pub async fn posts(&self, numbers: &[i64]) -> Result<Vec<Post>> {
        let mut tables = Vec::with_capacity(Kind::ALL.len());
        for kind in Kind::ALL {
            tables.push(self.records(kind, numbers).await?);
        }
        let missing: Vec<String> = numbers
            .iter()
            .filter(|number| tables.iter().any(|table| !table.contains_key(number)))
            .map(i64::to_string)
            .collect();
        if !missing.is_empty() {
            let shown = missing.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::failed(format!(
                "cannot read the posts: not all three tables contain row number {shown}{}",
                if missing.len() > 10 { ", …" } else { "" }
            ))
            .hint(
                "a post requires its row number in all three tables: remove incomplete posts from `--rows`, \
                 or run `pinpipe emulate` without `--rows` to post all posts",
            ));
        }
        let post = |number: &i64| Post {
            number: *number,
            records: std::array::from_fn(|table| {
                tables[table].get(number).cloned().unwrap_or_default()
            }),
        };
        Ok(numbers.iter().map(post).collect())
    }

    /// Returns records of one table as JSON objects, by row number.
    async fn records(&self, kind: Kind, numbers: &[i64]) -> Result<HashMap<i64, String>> {
        let columns: Vec<String> =
            kind.columns().iter().map(|column| self.selected(column, "")).collect();
        // The values are integers, so they are safe in the statement without parameters.
        let list: Vec<String> = numbers.iter().map(i64::to_string).collect();
        let statement = format!(
            "SELECT {} FROM {} WHERE {} IN ({})",
            columns.join(", "),
            kind.source_table(),
            self.quoted(kind.row_number_column()),
            list.join(", ")
        );
        let records = on_pool!(self, pool => {
            match sqlx::query(AssertSqlSafe(statement)).persistent(false).fetch_all(pool).await {
                Ok(rows) => rows.iter().map(|row| {
                    let mut object = Map::new();
                    for (position, (name, column_type)) in kind.columns().iter().enumerate() {
                        let value = match column_type {
                            ColumnType::Integer => row.try_get::<Option<i64>, _>(position)?.map_or(Value::Null, Value::from),
                            ColumnType::Float => row.try_get::<Option<f64>, _>(position)?.map_or(Value::Null, Value::from),
                            ColumnType::Text | ColumnType::DateTime => row.try_get::<Option<String>, _>(position)?.map_or(Value::Null, Value::String),
                        };
                        object.insert((*name).to_string(), value);
                    }
                    let number: i64 = row.try_get(0)?;
                    Ok((number, Value::Object(object).to_string()))
                }).collect::<Result<HashMap<i64, String>, sqlx::Error>>(),
                Err(error) => Err(error),
            }
        });
        records.map_err(|error| {
            explain(&format!("cannot read table `{}`", kind.source_table()), &error)
        })
    }

    /// Returns the number of rows of a table, or `None` if the table does not exist.
    ///
    /// # Errors
    /// The table exists but cannot be read.
    pub async fn row_count(&self, kind: Kind) -> Result<Option<i64>> {
        let statement = format!("SELECT COUNT(*) FROM {}", kind.source_table());
        let result = on_pool!(self, pool => sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement)).fetch_one(pool).await);
        match result {
            Ok(count) => Ok(Some(count)),
            Err(error) if is_missing_table(&error) => Ok(None),
            Err(error) => Err(explain(
                &format!("cannot count the rows of table `{}`", kind.source_table()),
                &error,
            )),
        }
    }

    /// Counts the rows of the three tables. A table that does not exist counts as empty.
    pub async fn total_rows(&self) -> Result<i64> {
        let mut rows = 0;
        for kind in Kind::ALL {
            rows += self.row_count(kind).await?.unwrap_or(0);
        }
        Ok(rows)
    }
}

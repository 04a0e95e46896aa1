//! Creates and fills the three source tables.

use sqlx::{AssertSqlSafe, QueryBuilder};

use crate::base::error::Result;
use crate::base::model::Kind;
use crate::base::output::progress::Progress;
use crate::clients::database::connect::{Database, explain, on_pool};
use crate::clients::database::{Cell, Rows};

/// Rows of one INSERT. With 12 columns, its parameters stay below the limit of every database.
const INSERT_ROWS: usize = 500;

impl Database {
    /// Drops the tables and creates them again, empty.
    pub async fn recreate_tables(&self) -> Result<()> {
        for kind in Kind::ALL {
            for statement in
                [format!("DROP TABLE IF EXISTS {}", kind.source_table()), self.create_table(kind)]
            {
                on_pool!(self, pool => sqlx::query(AssertSqlSafe(statement)).execute(pool).await.map(|_| ()))
                    .map_err(|error| explain(&format!("cannot create table `{}`", kind.source_table()), &error))?;
            }
        }
        Ok(())
    }

    /// Fills all tables in one transaction, so that a kill leaves them empty, never partly filled.
    pub async fn fill(&self, tables: &[Rows], progress: &Progress) -> Result<()> {
        let result = on_pool!(self, pool => {
            async {
                let mut transaction = pool.begin().await?;
                for table in tables {
                    let columns: Vec<String> = table.kind.columns().iter().map(|(name, _)| self.quoted(name)).collect();
                    let start = format!("INSERT INTO {} ({}) ", table.kind.source_table(), columns.join(", "));
                    for chunk in table.rows.chunks(INSERT_ROWS) {
                        let mut insert = QueryBuilder::new(start.as_str());
                        insert.push_values(chunk, |mut row, cells| {
                            for (cell, (_, column_type)) in cells.iter().zip(table.kind.columns()) {
                                match (cell, column_type) {
                                    (Cell::Integer(number), _) => row.push_bind(*number),
                                    (Cell::Float(number), _) => row.push_bind(*number),
                                    (Cell::Text(text), _) => row.push_bind(text.as_str()),
                                    (Cell::DateTime(time), _) => row.push_bind(*time),
                                    // PostgreSQL requires the type of a null.
                                    (Cell::Null, crate::base::model::ColumnType::Integer) => row.push_bind(None::<i64>),
                                    (Cell::Null, crate::base::model::ColumnType::Float) => row.push_bind(None::<f64>),
                                    (Cell::Null, crate::base::model::ColumnType::Text) => row.push_bind(None::<String>),
                                    (Cell::Null, crate::base::model::ColumnType::DateTime) => row.push_bind(None::<chrono::NaiveDateTime>),
                                };
                            }
                        });
                        insert.build().persistent(false).execute(&mut *transaction).await?;
                        progress.add(chunk.len() as u64);
                    }
                }
                transaction.commit().await
            }.await
        });
        result.map_err(|error: sqlx::Error| explain("cannot fill the tables", &error))
    }
}

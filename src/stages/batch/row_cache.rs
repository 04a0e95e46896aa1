//! Rows kept in memory for the questions: only the columns that the questions read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use tokio::task::JoinHandle;

use crate::base::config::schema::Median;
use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::Kind;
use crate::data::engine::memory_budget::MemoryBudget;
use crate::data::engine::session::Engine;
use crate::data::sql;
use crate::data::sql::{QUESTION_HINT, Question};

/// Caches the rows of one record kind, up to the memory budget.
pub struct RowCache {
    columns: Vec<usize>,
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
    max_rows: u64,
    max_bytes: u64,
    /// Without tables (`--no-tables`) the cache is the only copy of the rows.
    is_only_copy: bool,
    /// The rows exceeded the budget; the cache was emptied.
    has_overflowed: bool,
}

impl RowCache {
    /// Creates an empty cache. `is_only_copy`: no table contains the rows.
    pub fn new(
        kind: Kind,
        columns: &BTreeSet<String>,
        budget: &MemoryBudget,
        is_only_copy: bool,
    ) -> Self {
        let (columns, schema) = projection(kind, columns);
        let (max_rows, max_bytes) = (budget.cached_rows(), budget.cached_bytes());
        Self {
            columns,
            schema,
            batches: Vec::new(),
            rows: 0,
            bytes: 0,
            max_rows,
            max_bytes,
            is_only_copy,
            has_overflowed: false,
        }
    }

    /// Adds the required columns of these rows. Empties the cache if they exceed the budget.
    ///
    /// # Errors
    /// The rows exceed the budget and the cache is their only copy.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.has_overflowed {
            return Ok(());
        }
        let projected =
            batch.project(&self.columns).context(|| "cannot cache rows for the questions")?;
        self.rows += batch.num_rows() as u64;
        self.bytes += projected.get_array_memory_size() as u64;
        if self.rows > self.max_rows || self.bytes > self.max_bytes {
            if self.is_only_copy {
                return Err(Error::failed(
                    "cannot answer from memory alone: the rows of the lake exceed the memory limit",
                )
                .hint(
                    "run without `--no-tables`, which works for a lake of any size, or raise \
                     `--memory`",
                ));
            }
            self.has_overflowed = true;
            self.batches = Vec::new();
            return Ok(());
        }
        self.batches.push(projected);
        Ok(())
    }

    /// Returns the cached rows; `None` if they exceeded the budget.
    pub fn rows(self) -> Option<CachedRows> {
        (!self.has_overflowed).then_some(CachedRows { schema: self.schema, batches: self.batches })
    }
}

/// Returns the positions of these columns in the clean schema, and the schema projected to them.
fn projection(kind: Kind, columns: &BTreeSet<String>) -> (Vec<usize>, SchemaRef) {
    let schema = kind.clean_schema();
    let columns: Vec<usize> = (0..schema.fields().len())
        .filter(|position| columns.contains(schema.field(*position).name()))
        .collect();
    let projected_schema = Arc::new(Schema::new(
        columns.iter().map(|position| schema.field(*position).clone()).collect::<Vec<_>>(),
    ));
    (columns, projected_schema)
}

/// All rows of a record kind, with the required columns only.
pub struct CachedRows {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

/// Columns of each record kind that the questions read.
pub type RequiredColumns = BTreeMap<Kind, BTreeSet<String>>;

/// Required columns that a background task determines while the lake is opened and listed.
pub struct PendingColumns(tokio::sync::Mutex<Planning>);

enum Planning {
    Running(JoinHandle<Result<RequiredColumns>>),
    Done(Arc<RequiredColumns>),
    Failed,
}

impl PendingColumns {
    /// Wraps the running task.
    pub fn new(task: JoinHandle<Result<RequiredColumns>>) -> Self {
        Self(tokio::sync::Mutex::new(Planning::Running(task)))
    }

    /// Waits for the task and returns the columns.
    ///
    /// # Errors
    /// A question cannot be planned.
    pub async fn columns(&self) -> Result<Arc<RequiredColumns>> {
        let mut planning = self.0.lock().await;
        let failed = || "planning the questions was interrupted";
        let columns = match std::mem::replace(&mut *planning, Planning::Failed) {
            Planning::Done(columns) => columns,
            Planning::Running(task) => Arc::new(task.await.context(failed)??),
            Planning::Failed => return Err(Error::failed(failed())),
        };
        *planning = Planning::Done(columns.clone());
        Ok(columns)
    }
}

/// Determines the columns of each record kind that the join of posts and the questions read.
///
/// # Errors
/// A question cannot be planned.
pub async fn required_columns(questions: &[Question], median: Median) -> Result<RequiredColumns> {
    let engine = Engine::single();
    for kind in Kind::ALL {
        engine.register(&clean_name(kind), kind.clean_schema(), Vec::new())?;
    }
    let mut required = engine.columns_read(sql::POST).await.map_err(|error| {
        Error::failed("cannot plan the query for the posts").with_source(error.message)
    })?;
    let (post, _) = engine.query("the posts", sql::POST).await?;
    engine.register("post", post.clone(), Vec::new())?;
    for question in questions {
        let sql = question.query(median);
        let mut columns_by_table = engine.columns_read(&sql).await.map_err(|error| {
            Error::failed(format!("cannot plan the question {}", question.place(error.place)))
                .with_source(error.message)
                .hint(QUESTION_HINT)
        })?;
        let reads_clean_rows =
            Kind::ALL.iter().any(|kind| columns_by_table.contains_key(&clean_name(*kind)));
        // The optimizer drops columns that do not affect the answer, but the SQL still names them
        // and the query cannot be planned without them.
        if reads_clean_rows && !can_be_planned(question, &sql, &columns_by_table, &post).await? {
            for kind in Kind::ALL {
                if let Some(columns) = columns_by_table.get_mut(&clean_name(kind)) {
                    columns.extend(
                        kind.clean_schema().fields().iter().map(|field| field.name().clone()),
                    );
                }
            }
        }
        for (table, columns) in columns_by_table {
            required.entry(table).or_default().extend(columns);
        }
    }
    let of_kind = |kind: Kind| {
        let mut columns = required.remove(&clean_name(kind)).unwrap_or_default();
        // Rows are counted by the row number, even if no question reads a column.
        columns.insert("ind".into());
        (kind, columns)
    };
    Ok(Kind::ALL.map(of_kind).into_iter().collect())
}

/// Returns whether a question can be planned over tables that have only these columns.
async fn can_be_planned(
    question: &Question,
    sql: &str,
    columns_by_table: &BTreeMap<String, BTreeSet<String>>,
    post: &SchemaRef,
) -> Result<bool> {
    let engine = Engine::single();
    engine.register("post", post.clone(), Vec::new())?;
    for kind in Kind::ALL {
        let mut columns = columns_by_table.get(&clean_name(kind)).cloned().unwrap_or_default();
        columns.insert("ind".into());
        engine.register(&clean_name(kind), projection(kind, &columns).1, Vec::new())?;
    }
    Ok(engine.plan(&question.name, sql).await.is_ok())
}

/// Name of the table of clean rows of a record kind in the SQL.
pub fn clean_name(kind: Kind) -> String {
    format!("clean_{}", kind.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requires_only_the_columns_that_questions_read() {
        let user_question = Question::of("mine", "Mine", "SELECT title FROM clean_pin");
        let mut questions = sql::questions(None).expect("the built-in questions");
        let columns = required_columns(&questions, Median::Lower).await.expect("plans");
        let names =
            |kind: Kind| columns[&kind].iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        assert_eq!(names(Kind::Pin), "category follower_count ind poster_name");
        assert_eq!(
            (names(Kind::Geo), names(Kind::User)),
            ("country ind timestamp".into(), "age date_joined ind user_name".into())
        );
        questions.push(user_question);
        assert!(
            required_columns(&questions, Median::Lower).await.expect("plans")[&Kind::Pin]
                .contains("title")
        );
        // The answer does not depend on the description, but the SQL names it.
        let sql = "WITH p AS (SELECT ind, category, description FROM clean_pin) \
                   SELECT category, count(*) AS n FROM p GROUP BY category";
        let columns = required_columns(&[Question::of("named", "Named", sql)], Median::Lower)
            .await
            .expect("plans");
        assert!(
            columns[&Kind::Pin].contains("description")
                && !columns[&Kind::Geo].contains("coordinates")
        );
    }
}

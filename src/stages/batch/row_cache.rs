//! Rows that stay in memory for the questions: only the columns that those ask for.

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
use crate::data::sql::Question;

/// The rows of one kind.
pub struct RowCache {
    columns: Vec<usize>,
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
    max_rows: u64,
    max_bytes: u64,
    /// Nowhere else will they be.
    is_needed: bool,
    /// There were too many: none are kept.
    is_given_up: bool,
}

impl RowCache {
    /// `is_needed`: there is no table that has the rows.
    pub fn new(
        kind: Kind,
        columns: &BTreeSet<String>,
        budget: &MemoryBudget,
        is_needed: bool,
    ) -> Self {
        let (columns, schema) = part_of(kind, columns);
        let (max_rows, max_bytes) = (budget.cached_rows(), budget.cached_bytes());
        Self {
            columns,
            schema,
            batches: Vec::new(),
            rows: 0,
            bytes: 0,
            max_rows,
            max_bytes,
            is_needed,
            is_given_up: false,
        }
    }

    /// Keeps what is asked for of these rows.
    ///
    /// # Errors
    /// There is no room, and no table that has them.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.is_given_up {
            return Ok(());
        }
        let asked = batch
            .project(&self.columns)
            .context(|| "cannot keep rows for the questions")?;
        self.rows += batch.num_rows() as u64;
        self.bytes += asked.get_array_memory_size() as u64;
        if self.rows > self.max_rows || self.bytes > self.max_bytes {
            if self.is_needed {
                return Err(Error::failed("the lake is too large to be answered from memory alone")
                    .hint("leave out `--no-tables`: with tables any lake will do; or allow more with `--memory`"));
            }
            self.is_given_up = true;
            self.batches = Vec::new();
            return Ok(());
        }
        self.batches.push(asked);
        Ok(())
    }

    /// What was kept; `None`: there was too much.
    pub fn rows(self) -> Option<CachedRows> {
        (!self.is_given_up).then_some(CachedRows {
            schema: self.schema,
            batches: self.batches,
        })
    }
}

/// Where these columns of a kind stand, and the schema that they make.
fn part_of(kind: Kind, columns: &BTreeSet<String>) -> (Vec<usize>, SchemaRef) {
    let whole = kind.clean_schema();
    let columns: Vec<usize> = (0..whole.fields().len())
        .filter(|position| columns.contains(whole.field(*position).name()))
        .collect();
    let schema = Arc::new(Schema::new(
        columns
            .iter()
            .map(|position| whole.field(*position).clone())
            .collect::<Vec<_>>(),
    ));
    (columns, schema)
}

/// All rows of a kind, in the columns that are asked for.
pub struct CachedRows {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

/// Columns of each kind.
pub type RequiredColumns = BTreeMap<Kind, BTreeSet<String>>;

/// What is being planned on another core, while the lake is opened and listed.
pub struct PendingColumns(tokio::sync::Mutex<Planning>);

enum Planning {
    Begun(JoinHandle<Result<RequiredColumns>>),
    Done(Arc<RequiredColumns>),
    Failed,
}

impl PendingColumns {
    pub fn begun(planning: JoinHandle<Result<RequiredColumns>>) -> Self {
        Self(tokio::sync::Mutex::new(Planning::Begun(planning)))
    }

    /// Waits for it.
    ///
    /// # Errors
    /// A question cannot be planned.
    pub async fn columns(&self) -> Result<Arc<RequiredColumns>> {
        let mut planning = self.0.lock().await;
        let failed = || "planning the questions was interrupted";
        let columns = match std::mem::replace(&mut *planning, Planning::Failed) {
            Planning::Done(columns) => columns,
            Planning::Begun(begun) => Arc::new(begun.await.context(failed)??),
            Planning::Failed => return Err(Error::failed(failed())),
        };
        *planning = Planning::Done(columns.clone());
        Ok(columns)
    }
}

/// The columns of each kind that the posts and the questions read.
///
/// # Errors
/// A question cannot be planned.
pub async fn required_columns(questions: &[Question], median: Median) -> Result<RequiredColumns> {
    let engine = Engine::single();
    for kind in Kind::ALL {
        engine.register(&clean_name(kind), kind.clean_schema(), Vec::new())?;
    }
    let mut read = engine.columns_read("the posts", sql::POST).await?;
    let (post, _) = engine.query("the posts", sql::POST).await?;
    engine.register("post", post.clone(), Vec::new())?;
    for question in questions {
        let sql = question.query(median);
        let own = engine.columns_read(&question.name, &sql).await;
        let mut own = own.map_err(|error| {
            error.hint("correct the question's file; it may read `post`, `clean_pin`, `clean_geo` and `clean_user`, whose columns the README names")
        })?;
        let reads_clean_rows = Kind::ALL
            .iter()
            .any(|kind| own.contains_key(&clean_name(*kind)));
        // A plan leaves out what no answer depends on; the names must stand all the same.
        if reads_clean_rows && !can_be_asked(question, &sql, &own, &post).await? {
            for kind in Kind::ALL {
                if let Some(columns) = own.get_mut(&clean_name(kind)) {
                    columns.extend(
                        kind.clean_schema()
                            .fields()
                            .iter()
                            .map(|field| field.name().clone()),
                    );
                }
            }
        }
        for (table, columns) in own {
            read.entry(table).or_default().extend(columns);
        }
    }
    let of = |kind: Kind| {
        let mut columns = read.remove(&clean_name(kind)).unwrap_or_default();
        // What tells how many rows there are, also where nothing is asked for.
        columns.insert("ind".into());
        (kind, columns)
    };
    Ok(Kind::ALL.map(of).into_iter().collect())
}

/// Whether a question can be planned over tables of these columns alone.
async fn can_be_asked(
    question: &Question,
    sql: &str,
    columns: &BTreeMap<String, BTreeSet<String>>,
    post: &SchemaRef,
) -> Result<bool> {
    let engine = Engine::single();
    engine.register("post", post.clone(), Vec::new())?;
    for kind in Kind::ALL {
        let mut own = columns.get(&clean_name(kind)).cloned().unwrap_or_default();
        own.insert("ind".into());
        engine.register(&clean_name(kind), part_of(kind, &own).1, Vec::new())?;
    }
    Ok(engine.plan(&question.name, sql).await.is_ok())
}

/// The name by which the SQL knows the clean rows of a kind.
pub fn clean_name(kind: Kind) -> String {
    format!("clean_{}", kind.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_the_questions_read_is_kept() {
        let own = Question::of("mine", "Mine", "SELECT title FROM clean_pin");
        let mut questions = sql::questions(None).expect("the eight");
        let columns = required_columns(&questions, Median::Lower)
            .await
            .expect("plans");
        let names = |kind: Kind| {
            columns[&kind]
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(names(Kind::Pin), "category follower_count ind poster_name");
        assert_eq!(
            (names(Kind::Geo), names(Kind::User)),
            (
                "country ind timestamp".into(),
                "age date_joined ind user_name".into()
            )
        );
        questions.push(own);
        assert!(
            required_columns(&questions, Median::Lower)
                .await
                .expect("plans")[&Kind::Pin]
                .contains("title")
        );
        // No answer depends on the description, yet its name must stand.
        let named = "WITH p AS (SELECT ind, category, description FROM clean_pin) SELECT category, count(*) AS n FROM p GROUP BY category";
        let columns = required_columns(&[Question::of("named", "Named", named)], Median::Lower)
            .await
            .expect("plans");
        assert!(
            columns[&Kind::Pin].contains("description")
                && !columns[&Kind::Geo].contains("coordinates")
        );
    }
}

//! Checks that a question only reads: it is exactly one SELECT.

use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement};
use datafusion::sql::sqlparser::dialect::SparkSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The reason why a query is not one SELECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOneSelect {
    /// Line and column, from 1, if the parser knows them.
    pub place: Option<(u64, u64)>,
    pub message: String,
}

impl NotOneSelect {
    fn new(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into() }
    }
}

/// Refuses everything but one query: other statements, several statements, a query that writes.
///
/// # Errors
/// The reason, with its position in the text.
pub fn check_select(sql: &str) -> Result<(), NotOneSelect> {
    let statements = Parser::parse_sql(&SparkSqlDialect {}, sql).map_err(|error| {
        let text = error.to_string();
        let text = text.strip_prefix("sql parser error: ").unwrap_or(&text);
        match split_place(text) {
            Some((message, place)) => {
                NotOneSelect { place: Some(place), message: message.to_string() }
            }
            None => NotOneSelect::new(text),
        }
    })?;
    match statements.as_slice() {
        [] => Err(NotOneSelect::new("expected one SELECT, got an empty text")),
        [Statement::Query(query)] if is_read_only(query) => Ok(()),
        [Statement::Query(_)] => {
            Err(NotOneSelect::new("expected one SELECT, got a query that writes"))
        }
        [statement] => {
            let text = statement.to_string();
            let keyword = text.split_whitespace().next().unwrap_or_default().to_uppercase();
            Err(NotOneSelect::new(format!("expected one SELECT, got {keyword}")))
        }
        statements => Err(NotOneSelect::new(format!(
            "expected one SELECT, got {} statements",
            statements.len()
        ))),
    }
}

/// Returns whether a query and its common table expressions write nothing. The engines themselves
/// refuse statements in other places, such as a subquery.
fn is_read_only(query: &Query) -> bool {
    let tables = query.with.iter().flat_map(|with| &with.cte_tables);
    tables.into_iter().all(|table| is_read_only(&table.query)) && reads_only(&query.body)
}

fn reads_only(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_none(),
        SetExpr::Query(query) => is_read_only(query),
        SetExpr::SetOperation { left, right, .. } => reads_only(left) && reads_only(right),
        SetExpr::Values(_) | SetExpr::Table(_) => true,
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => false,
    }
}

/// Splits ` at Line: 1, Column: 5` off the end of a parser's message.
fn split_place(text: &str) -> Option<(&str, (u64, u64))> {
    let (message, place) = text.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some((message, (line.parse().ok()?, column.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_accepted() {
        for sql in [
            "SELECT 1",
            "-- a title\nSELECT country, count(*) FROM post GROUP BY country ORDER BY 2 DESC LIMIT 3",
            "WITH a AS (SELECT 1 AS n) SELECT n FROM a UNION ALL SELECT n FROM a",
            "(SELECT 1)",
            "SELECT 'INSERT INTO t; DROP TABLE t' AS text",
            "SELECT `category` FROM clean_pin WHERE tag_list LIKE '%;%' -- ; the end\n",
            "SELECT array(1, 2)",
        ] {
            assert_eq!(check_select(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for sql in [
            "",
            "-- only a comment",
            "INSERT INTO clean_pin SELECT * FROM clean_pin",
            "COPY clean_pin TO 'x.csv'",
            "DROP TABLE clean_pin",
            "CREATE TABLE t AS SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/tmp'",
            "SET datafusion.execution.batch_size = 1",
            "DELETE FROM clean_pin",
            "UPDATE clean_pin SET title = 'x'",
            "EXPLAIN SELECT 1",
            "SELECT 1; SELECT 2",
            "SELECT 1; DROP TABLE clean_pin",
            "SELECT * INTO t FROM clean_pin",
            "WITH a AS (INSERT INTO t SELECT 1) SELECT 1",
            "SELECT FROM WHERE",
        ] {
            assert!(check_select(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_place() {
        let error = check_select("SELECT country\nFROM post\nGROUP country").expect_err("refused");
        assert_eq!(error.place, Some((3, 1)), "{error:?}");
        assert!(!error.message.contains("Line:"), "{error:?}");
    }
}

//! Cleaning and questions as portable SQL: the same text for DataFusion and Spark, for batch and
//! stream.
//!
//! The SQL uses only features that both engines interpret alike: no engine-specific functions,
//! explicit handling of `NULL`, times compared without conversion. Cleaning reads `raw_pin`,
//! `raw_geo` and `raw_user` and produces `clean_pin`, `clean_geo` and `clean_user`, which are
//! joined into `post` for the questions.

pub mod select;

use std::path::{Path, PathBuf};

use crate::base::config::schema::{Config, Median};
use crate::base::error::{Error, Result, io_error};
use crate::base::model::Kind;
use crate::data::sql::select::check_select;

/// Joins the clean tables: one row for each post.
pub const POST: &str = include_str!("post.sql");

/// A question and the table that answers it.
#[derive(Debug, Clone)]
pub struct Question {
    /// Name of the table and the file of the answer.
    pub name: String,
    /// The question as text.
    pub title: String,
    sql: String,
    /// File of a question of the user.
    file: Option<PathBuf>,
}

/// Hint for a question that cannot be used.
pub const QUESTION_HINT: &str = "correct the question's file: it is one SELECT over `post`, \
     `clean_pin`, `clean_geo` and `clean_user`, whose columns docs/batch.md lists";

macro_rules! question {
    ($name:literal, $title:literal) => {
        ($name, $title, include_str!(concat!("question/", $name, ".sql")))
    };
}

/// The built-in questions: name, title and query of each answer. The second and the third have two
/// answers.
const QUESTIONS: &[(&str, &str, &str)] = &[
    question!("top_category_by_country", "1. the most popular category in each country"),
    question!("posts_by_category_and_year", "2. posts of each category in each year, 2018 to 2022"),
    question!("top_category_by_year", "2. the most popular category of each year"),
    question!("top_user_by_country", "3. the user with the most followers in each country"),
    question!("top_country_by_followers", "3. the country whose top user has the most followers"),
    question!("top_category_by_age_group", "4. the most popular category in each age group"),
    question!("median_followers_by_age_group", "5. median follower count in each age group"),
    question!("users_joined_by_year", "6. users who joined in each year, 2015 to 2020"),
    question!(
        "median_followers_by_join_year",
        "7. median follower count of users by year joined, 2015 to 2020"
    ),
    question!(
        "median_followers_by_age_group_and_join_year",
        "8. median follower count of users by age group and year joined, 2015 to 2020"
    ),
];

/// Returns the built-in questions and those in the folder `batch.questions`.
///
/// # Errors
/// As [`questions`].
pub fn questions_of(config: &Config) -> Result<Vec<Question>> {
    let folder = Some(&config.batch.questions).filter(|folder| !folder.is_empty());
    questions(folder.map(Path::new))
}

/// Returns the built-in questions, followed by the `.sql` files in the user's folder, by name.
///
/// A file contains one query over `post`, `clean_pin`, `clean_geo` and `clean_user`. A comment in
/// its first line is the title of the question; without one, the file name is.
///
/// # Errors
/// The folder cannot be read; the name of a file is not a valid table name, or that of a built-in
/// question; a file contains anything but one SELECT.
pub fn questions(folder: Option<&Path>) -> Result<Vec<Question>> {
    let built_in = |&(name, title, sql): &(&str, &str, &str)| Question {
        name: name.into(),
        title: title.into(),
        sql: sql.into(),
        file: None,
    };
    let mut questions: Vec<Question> = QUESTIONS.iter().map(built_in).collect();
    let Some(folder) = folder else {
        return Ok(questions);
    };
    let entries = std::fs::read_dir(folder)
        .map_err(|error| io_error("read the questions in", folder, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| io_error("read the questions in", folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    files.sort();
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !crate::base::config::check::is_id(&name) {
            return Err(Error::usage(format!(
                "cannot use the file name of `{}` as a table name",
                path.display()
            ))
            .hint("use 1 to 40 letters, digits, `-` or `_` before `.sql`"));
        }
        if questions.iter().any(|question| question.name == name) {
            return Err(Error::usage(format!(
                "cannot add the question `{}`: a built-in question has this name",
                path.display()
            ))
            .hint("rename the file"));
        }
        let sql = std::fs::read_to_string(&path).map_err(|error| io_error("read", &path, error))?;
        let title = sql
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("--"))
            .map_or(name.clone(), |title| title.trim().to_string());
        let sql = sql.trim_end().trim_end_matches(';').to_string();
        let question = Question { name, title, sql, file: Some(path) };
        question.check()?;
        questions.push(question);
    }
    Ok(questions)
}

impl Question {
    /// Creates a question, for tests.
    #[cfg(test)]
    pub fn of(name: &str, title: &str, sql: &str) -> Self {
        Self { name: name.into(), title: title.into(), sql: sql.into(), file: None }
    }

    /// Refuses a question that is not one SELECT: a question must not write on any engine.
    fn check(&self) -> Result<()> {
        // Both medians are expressions, so either will do.
        check_select(&self.query(Median::Lower)).map_err(|refused| {
            Error::usage(format!("cannot use the question {}", self.place(refused.place)))
                .with_source(refused.message)
                .hint(QUESTION_HINT)
        })
    }

    /// The question in messages: its file, with line and column if they are known, or its name.
    pub fn place(&self, place: Option<(u64, u64)>) -> String {
        let Some(file) = &self.file else {
            return format!("`{}`", self.name);
        };
        match place {
            Some((line, column)) => format!("{}:{line}:{column}", file.display()),
            None => file.display().to_string(),
        }
    }

    /// Returns the query with the expression of the chosen median.
    pub fn query(&self, median: Median) -> String {
        let expression = match median {
            Median::Interpolated => "avg(CAST(follower_count AS DOUBLE))",
            Median::Lower => "CAST(min(follower_count) AS DOUBLE)",
        };
        self.sql.replace("{median}", expression)
    }
}

/// Returns the query that converts each raw row of a kind to a clean one. Duplicates are dropped
/// afterwards.
pub fn clean(kind: Kind) -> &'static str {
    match kind {
        Kind::Pin => include_str!("clean/pin.sql"),
        Kind::Geo => include_str!("clean/geo.sql"),
        Kind::User => include_str!("clean/user.sql"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_the_questions_of_the_user() {
        let folder = tempfile::tempdir().expect("create folder");
        std::fs::write(
            folder.path().join("busiest.sql"),
            "-- the busiest country\nSELECT country FROM post;\n",
        )
        .expect("write file");
        std::fs::write(folder.path().join("notes.txt"), "not a question").expect("write file");
        let all = questions(Some(folder.path())).expect("read questions");
        assert_eq!(all.len(), QUESTIONS.len() + 1);
        let added = &all[QUESTIONS.len()];
        assert_eq!((added.name.as_str(), added.title.as_str()), ("busiest", "the busiest country"));
        assert!(!added.query(Median::Lower).contains(';'));
        std::fs::write(folder.path().join("users_joined_by_year.sql"), "SELECT 1")
            .expect("write file");
        assert!(
            questions(Some(folder.path())).is_err(),
            "a question of the user does not replace a built-in one"
        );
    }
}

//! What a clean record is and what is asked of it: portable SQL, the same text for
//! DataFusion and Spark, for batch and stream.
//!
//! Only what both engines read alike is used: no engine's own functions, `NULL`s handled
//! explicitly, times compared as they are. Tables: `raw_pin`, `raw_geo`, `raw_user` in,
//! `clean_pin`, `clean_geo`, `clean_user` out, joined into `post` for the questions.

use std::path::Path;

use crate::base::config::schema::{Config, Median};
use crate::base::error::{Error, Result, io_error};
use crate::base::model::Kind;

/// Joins the clean tables: one row for each post.
pub const POST: &str = include_str!("post.sql");

/// A question and the table that answers it.
#[derive(Debug, Clone)]
pub struct Question {
    /// Name of the answer's table and file.
    pub name: String,
    /// What is asked, for people.
    pub title: String,
    sql: String,
}

macro_rules! question {
    ($name:literal, $title:literal) => {
        (
            $name,
            $title,
            include_str!(concat!("question/", $name, ".sql")),
        )
    };
}

/// The eight questions; the second and the third have two answers.
const QUESTIONS: [(&str, &str, &str); 10] = [
    question!(
        "top_category_by_country",
        "1. the most popular category in each country"
    ),
    question!(
        "posts_by_category_and_year",
        "2. posts of each category in each year, 2018 to 2022"
    ),
    question!(
        "top_category_by_year",
        "2. the most popular category of each year"
    ),
    question!(
        "top_user_by_country",
        "3. the user with the most followers in each country"
    ),
    question!(
        "top_country_by_followers",
        "3. the country whose top user has the most followers"
    ),
    question!(
        "top_category_by_age_group",
        "4. the most popular category in each age group"
    ),
    question!(
        "median_followers_by_age_group",
        "5. median follower count in each age group"
    ),
    question!(
        "users_joined_by_year",
        "6. users who joined in each year, 2015 to 2020"
    ),
    question!(
        "median_followers_by_join_year",
        "7. median follower count of users by year joined, 2015 to 2020"
    ),
    question!(
        "median_followers_by_age_group_and_join_year",
        "8. the same by age group"
    ),
];

/// The eight questions and those of the configuration's folder.
///
/// # Errors
/// As [`questions`].
pub fn questions_of(config: &Config) -> Result<Vec<Question>> {
    let folder = Some(&config.batch.questions).filter(|folder| !folder.is_empty());
    questions(folder.map(Path::new))
}

/// The eight questions, and those that lie as `.sql` files in the user's folder, by name.
///
/// A user's file is one query over `post`, `clean_pin`, `clean_geo` and `clean_user`; its
/// first line may be a comment that says what is asked.
///
/// # Errors
/// The folder cannot be read; a file takes the name of one of the eight.
pub fn questions(folder: Option<&Path>) -> Result<Vec<Question>> {
    let own = |(name, title, sql): (&str, &str, &str)| Question {
        name: name.into(),
        title: title.into(),
        sql: sql.into(),
    };
    let mut questions: Vec<Question> = QUESTIONS.into_iter().map(own).collect();
    let Some(folder) = folder else {
        return Ok(questions);
    };
    let entries = std::fs::read_dir(folder)
        .map_err(|error| io_error("read the questions in", folder, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| io_error("read the questions in", folder, error))?
            .path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    files.sort();
    for path in files {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !crate::base::config::check::is_id(&name) {
            return Err(
                Error::usage(format!("`{}` cannot name a table", path.display()))
                    .hint("use 1 to 40 letters, digits, `-` or `_` before .sql"),
            );
        }
        if questions.iter().any(|question| question.name == name) {
            return Err(Error::usage(format!(
                "`{}` has the name of one of the eight questions",
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
        questions.push(Question {
            name,
            title,
            sql: sql.trim().trim_end_matches(';').to_string(),
        });
    }
    Ok(questions)
}

impl Question {
    /// A question of a test.
    #[cfg(test)]
    pub fn of(name: &str, title: &str, sql: &str) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            sql: sql.into(),
        }
    }

    /// The query, with the kind of median filled in.
    pub fn query(&self, median: Median) -> String {
        let expression = match median {
            Median::Interpolated => "avg(CAST(follower_count AS DOUBLE))",
            Median::Lower => "CAST(min(follower_count) AS DOUBLE)",
        };
        self.sql.replace("{median}", expression)
    }
}

/// The query that turns each raw row of a kind into a clean one; repeated rows go after it.
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
    fn a_users_questions_follow_the_eight() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(
            folder.path().join("busiest.sql"),
            "-- the busiest country\nSELECT country FROM post;\n",
        )
        .expect("writes");
        std::fs::write(folder.path().join("notes.txt"), "not a question").expect("writes");
        let all = questions(Some(folder.path())).expect("reads");
        assert_eq!(all.len(), 11);
        assert_eq!(
            (all[10].name.as_str(), all[10].title.as_str()),
            ("busiest", "the busiest country")
        );
        assert!(!all[10].query(Median::Lower).contains(';'));
        std::fs::write(folder.path().join("users_joined_by_year.sql"), "SELECT 1").expect("writes");
        assert!(
            questions(Some(folder.path())).is_err(),
            "one of the eight is not replaced silently"
        );
    }
}

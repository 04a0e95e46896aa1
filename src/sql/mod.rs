//! What a clean record is and what is asked of it: portable SQL, the same text for
//! DataFusion and Spark, for batch and stream.
//!
//! Only what both engines read alike is used: no engine's own functions, `NULL`s handled
//! explicitly, times compared as they are. Tables: `raw_pin`, `raw_geo`, `raw_user` in,
//! `clean_pin`, `clean_geo`, `clean_user` out, joined into `post` for the questions.

use crate::config::Median;
use crate::record::Kind;

/// Joins the clean tables: one row for each post.
pub const POST: &str = include_str!("post.sql");

/// A question and the table that answers it.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Name of the answer's table and file.
    pub name: &'static str,
    /// What is asked, for people.
    pub title: &'static str,
    sql: &'static str,
}

macro_rules! question {
    ($name:literal, $title:literal) => {
        Question { name: $name, title: $title, sql: include_str!(concat!("question/", $name, ".sql")) }
    };
}

/// The eight questions; the second and the third have two answers.
pub const QUESTIONS: [Question; 10] = [
    question!("top_category_by_country", "1. the most popular category in each country"),
    question!("posts_by_category_and_year", "2. posts of each category in each year, 2018 to 2022"),
    question!("top_category_by_year", "2. the most popular category of each year"),
    question!("top_user_by_country", "3. the user with the most followers in each country"),
    question!("top_country_by_followers", "3. the country whose top user has the most followers"),
    question!("top_category_by_age_group", "4. the most popular category in each age group"),
    question!("median_followers_by_age_group", "5. median follower count in each age group"),
    question!("users_joined_by_year", "6. users who joined in each year, 2015 to 2020"),
    question!("median_followers_by_join_year", "7. median follower count of users by year joined, 2015 to 2020"),
    question!("median_followers_by_age_group_and_join_year", "8. the same by age group"),
];

impl Question {
    /// The query, with the kind of median filled in.
    pub fn query(&self, median: Median) -> String {
        let expression = match median {
            Median::Interpolated => "avg(CAST(follower_count AS DOUBLE))",
            Median::Lower => "CAST(min(follower_count) AS DOUBLE)",
        };
        self.sql.replace("{median}", expression)
    }
}

/// The query that turns the raw table of a kind into the clean one, without duplicates.
pub fn clean(kind: Kind) -> &'static str {
    match kind {
        Kind::Pin => include_str!("clean/pin.sql"),
        Kind::Geo => include_str!("clean/geo.sql"),
        Kind::User => include_str!("clean/user.sql"),
    }
}

//! Parameters of the Spark job, as JSON.

use serde::Serialize;

use crate::base::config::endpoints::lake_bucket;
use crate::base::config::schema::{Config, Median};
use crate::base::error::{Error, Result};
use crate::base::model::{ColumnType, Kind};
use crate::data::lake::compression::Compression;
use crate::data::lake::format::json_lines;
use crate::data::lake::objects::Layout;
use crate::data::sql;
use crate::data::sql::Question;

/// Python source of the job.
pub const JOB: &str = include_str!("job.py");

/// Parameters of a run.
#[derive(Debug, Serialize)]
pub struct Parameters {
    kinds: Vec<KindParameters>,
    post: &'static str,
    questions: Vec<QuestionParameters>,
    /// Output folder for answers and counts.
    out: String,
}

#[derive(Debug, Serialize)]
struct KindParameters {
    name: &'static str,
    folders: Vec<Folder>,
    columns: Vec<Column>,
    clean: &'static str,
}

/// Objects of one compression in a folder. If Spark cannot decompress one of them, the job
/// decompresses all of them itself.
#[derive(Debug, Serialize)]
struct Folder {
    path: String,
    /// Glob pattern of file names.
    files: String,
    /// The objects are small and contain one record, which may have several lines.
    is_one_record: bool,
}

#[derive(Debug, Serialize)]
struct Column {
    name: &'static str,
    #[serde(rename = "type")]
    column_type: ColumnType,
}

#[derive(Debug, Serialize)]
struct QuestionParameters {
    name: String,
    sql: String,
}

/// Returns the output folder of runs on Databricks, `<lake>/answers/<id>`. Each run has a
/// subfolder.
pub fn answers_url(config: &Config, lake_url: &str) -> String {
    format!("{}/answers/{}", lake_url.trim_end_matches('/'), config.id)
}

impl Parameters {
    /// Parameters of the scheduled job, which reads the bucket of the sink connector.
    ///
    /// # Errors
    /// The user's questions cannot be read; the sink connector does not write to a bucket.
    pub fn scheduled(config: &Config) -> Result<Self> {
        let lake = lake_bucket(config);
        let lake = lake.trim_end_matches('/');
        if !lake.starts_with("s3://") {
            return Err(Error::usage(format!(
                "cannot read the lake `{lake}` from Databricks: expected s3://BUCKET"
            ))
            .hint("set `lake.url` to s3://BUCKET"));
        }
        let questions = sql::questions_of(config)?;
        Ok(Self::new(
            config,
            lake,
            &Layout::of(config).topics_dir,
            &questions,
            config.batch.median,
            answers_url(config, lake),
        ))
    }

    /// Parameters of a run over `lake`, an absolute path or a URL that Spark can read.
    pub fn new(
        config: &Config,
        lake: &str,
        topics_dir: &str,
        questions: &[Question],
        median: Median,
        out: String,
    ) -> Self {
        let kinds = Kind::ALL.map(|kind| {
            let topic = format!("{lake}/{topics_dir}/{}", config.topic(kind));
            let mut folders = Vec::new();
            for compression in Compression::ALL {
                let files = file_pattern(compression);
                folders.push(Folder {
                    path: topic.clone(),
                    files: files.clone(),
                    is_one_record: false,
                });
                if kind == Kind::Pin {
                    folders.push(Folder {
                        path: format!("{lake}/events"),
                        files: format!("event-{files}"),
                        is_one_record: true,
                    });
                }
            }
            let columns = kind
                .columns()
                .iter()
                // The values of a column that no table has cannot reject a record.
                .filter(|(name, _)| kind.is_cleaned(name))
                .map(|(name, column_type)| Column { name, column_type: *column_type });
            KindParameters {
                name: kind.name(),
                folders,
                columns: columns.collect(),
                clean: sql::clean(kind),
            }
        });
        let questions = questions.iter().map(|question| QuestionParameters {
            name: question.name.clone(),
            sql: question.query(median),
        });
        Self { kinds: kinds.into(), post: sql::POST, questions: questions.collect(), out }
    }
}

/// Glob pattern, in Hadoop's syntax, for the names of objects with this compression.
fn file_pattern(compression: Compression) -> String {
    let extensions =
        json_lines::EXTENSIONS.map(|extension| in_any_case(extension.trim_start_matches('.')));
    let extensions = extensions.join(",");
    format!("*.{{{extensions}}}{}", in_any_case(compression.extension()))
}

/// Glob pattern for a string in any letter case: `[gG][zZ]` for `gz`.
fn in_any_case(text: &str) -> String {
    let pattern = |letter: char| {
        if letter.is_ascii_alphabetic() {
            format!("[{}{}]", letter.to_ascii_lowercase(), letter.to_ascii_uppercase())
        } else {
            letter.to_string()
        }
    };
    text.chars().map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_by_their_names_in_any_case() {
        let names = "*.{[jJ][sS][oO][nN],[jJ][sS][oO][nN][lL],[nN][dD][jJ][sS][oO][nN]}";
        assert_eq!(file_pattern(Compression::None), names);
        assert_eq!(file_pattern(Compression::Gzip), format!("{names}.[gG][zZ]"));
    }
}

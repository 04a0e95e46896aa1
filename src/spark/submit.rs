//! Runs the job with `spark-submit` on this machine and reads its results.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::base::config::data_dir::DataEntry;
use crate::base::config::schema::Config;
use crate::base::config::secret::SECRET_VARIABLES;
use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::base::fs::write_atomic;
use crate::base::output::Printer;
use crate::data::engine::session::cores;
use crate::spark::SparkBatch;
use crate::spark::job::{JOB, Parameters};
use crate::spark::results::fetch;
use crate::stages::batch::report::BatchReport;

/// Maximum lines of Spark's log in an error.
const MAX_LOG_LINES: usize = 5;
/// First line of a Python exception. Spark also logs errors that the job handles, such as a damaged
/// object; the error that ends the job follows the last traceback.
const TRACEBACK: &str = "Traceback (most recent call last):";

/// Runs the batch job with `spark-submit`. Returns the same answers and counts as the embedded
/// engine.
///
/// # Errors
/// `spark-submit` cannot be started; the job fails; the user interrupts it.
pub async fn run(batch: &SparkBatch<'_>) -> Result<BatchReport> {
    let SparkBatch { config, lake_url, topics_dir, questions, median, printer } = *batch;
    let folder = DataEntry::Spark.path(&config.data_dir);
    // Results of an earlier run must not be read as those of this one.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|error| io_error("remove", &folder, error))?;
    }
    std::fs::create_dir_all(&folder).map_err(|error| io_error("create", &folder, error))?;
    let folder =
        std::fs::canonicalize(&folder).map_err(|error| io_error("open", &folder, error))?;
    let lake = match lake_url.strip_prefix("s3://") {
        // Apache Spark's S3 connector uses the scheme `s3a`; Databricks accepts both.
        Some(bucket) => format!("s3a://{}", bucket.trim_end_matches('/')),
        None => {
            let path = Path::new(lake_url.strip_prefix("file://").unwrap_or(lake_url));
            std::fs::canonicalize(path)
                .map_err(|error| io_error("open the lake", path, error))?
                .to_string_lossy()
                .into_owned()
        }
    };
    let out = folder.join("out");
    let parameters = Parameters::new(
        config,
        &lake,
        topics_dir,
        questions,
        median,
        out.to_string_lossy().into_owned(),
    );
    let (job, parameters_file) = (folder.join("job.py"), folder.join("parameters.json"));
    write_atomic(&job, JOB).map_err(|error| io_error("write", &job, error))?;
    crate::base::fs::save_json(&parameters_file, &parameters)?;
    submit(config, &job, &parameters_file, printer).await?;

    fetch(config, &out.to_string_lossy(), lake_url, questions).await
}

async fn submit(
    config: &Config,
    job: &Path,
    parameters_file: &Path,
    printer: &Printer,
) -> Result<()> {
    let program = &config.spark.submit;
    let mut command = Command::new(program);
    // Spark reads only the lake, with the credentials of AWS.
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    command.arg("--master").arg(&config.spark.master);
    if config.spark.master.starts_with("local") {
        // Spark's default of 200 partitions is meant for a cluster; on one machine most are empty.
        let partitions = 2 * cores();
        command
            .arg("--conf")
            .arg(format!("spark.sql.shuffle.partitions={partitions}"))
            .args(["--conf", "spark.ui.enabled=false"]);
    }
    command.args(&config.spark.arguments);
    if !config.lake.endpoint_url.is_empty() {
        command
            .arg("--conf")
            .arg(format!("spark.hadoop.fs.s3a.endpoint={}", config.lake.endpoint_url));
        command.arg("--conf").arg("spark.hadoop.fs.s3a.path.style.access=true");
    }
    command
        .arg(job)
        .arg(parameters_file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Error::failed(format!("cannot start `{program}`"))
            .with_source(error)
            .hint("install Spark (`pip install pyspark`; it requires Java), or set `spark.submit` to its path")
    })?;
    let log = child.stderr.take();
    let progress = printer.progress("Spark", None);
    let log_progress = progress.clone();
    let log_reader = tokio::task::spawn_blocking(move || {
        let mut error_lines: Vec<String> = Vec::new();
        for line in log
            .into_iter()
            .flat_map(|log| BufReader::new(log).lines())
            .map_while(std::io::Result::ok)
        {
            tracing::debug!(target: "spark", line);
            log_progress.add(1);
            if line == TRACEBACK {
                error_lines.clear();
            } else if line.contains("Error")
                || line.contains("Exception")
                || line.contains(" ERROR ")
            {
                error_lines.push(line);
            }
        }
        error_lines
    });
    let error_lines = tokio::select! {
        lines = log_reader => lines.context(|| "cannot read the log of Spark")?,
        () = crate::base::shutdown::shutdown_signal() => {
            stop(&mut child);
            return Err(Error::interrupted("interrupted: no answers were written").hint("re-run the command"));
        }
    };
    progress.finish();
    let status = child.wait().context(|| format!("cannot wait for `{program}`"))?;
    if status.success() {
        return Ok(());
    }
    let shown: String =
        error_lines.iter().take(MAX_LOG_LINES).map(|line| format!("\n  {}", line.trim())).collect();
    Err(Error::failed(format!("Spark failed with {status}{shown}"))
        .hint("re-run the command with `-vv` for the full log of Spark"))
}

fn stop(child: &mut Child) {
    // Both fail only if the process has already exited.
    let _ = child.kill();
    let _ = child.wait();
}

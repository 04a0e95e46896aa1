//! Running the job with `spark-submit` on this machine, and fetching what it found.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::base::fs::write_atomic;
use crate::base::output::Printer;
use crate::data::engine::session::cores;
use crate::spark::SparkBatch;
use crate::spark::job::{JOB, Parameters};
use crate::spark::results::fetch;
use crate::stages::batch::report::BatchReport;

/// Lines of Spark's log that an error repeats.
const SHOWN_LINES: usize = 5;

/// Runs the whole job; answers and counts as the embedded engine gives them.
///
/// # Errors
/// `spark-submit` cannot be started, the job failed, the user stopped it.
pub async fn run(batch: &SparkBatch<'_>) -> Result<BatchReport> {
    let SparkBatch {
        config,
        lake_url,
        topics_dir,
        questions,
        median,
        printer,
    } = *batch;
    let folder = config.data_dir.join("spark");
    // What an earlier run left must not be taken for this one's.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|error| io_error("remove", &folder, error))?;
    }
    std::fs::create_dir_all(&folder).map_err(|error| io_error("create", &folder, error))?;
    let folder =
        std::fs::canonicalize(&folder).map_err(|error| io_error("open", &folder, error))?;
    let lake = match lake_url.strip_prefix("s3://") {
        // Apache Spark's own name for it; Databricks takes both.
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
    let (job, told) = (folder.join("job.py"), folder.join("parameters.json"));
    write_atomic(&job, JOB).map_err(|error| io_error("write", &job, error))?;
    crate::base::fs::save_json(&told, &parameters)?;
    submit(config, &job, &told, printer).await?;

    fetch(config, &out.to_string_lossy(), lake_url, questions).await
}

async fn submit(config: &Config, job: &Path, told: &Path, printer: &Printer) -> Result<()> {
    let program = &config.spark.submit;
    let mut command = Command::new(program);
    command.arg("--master").arg(&config.spark.master);
    if config.spark.master.starts_with("local") {
        // Spark's default of 200 partitions is meant for a cluster; here most would be empty.
        let partitions = 2 * cores();
        command
            .arg("--conf")
            .arg(format!("spark.sql.shuffle.partitions={partitions}"))
            .args(["--conf", "spark.ui.enabled=false"]);
    }
    command.args(&config.spark.arguments);
    if !config.lake.endpoint_url.is_empty() {
        command.arg("--conf").arg(format!(
            "spark.hadoop.fs.s3a.endpoint={}",
            config.lake.endpoint_url
        ));
        command
            .arg("--conf")
            .arg("spark.hadoop.fs.s3a.path.style.access=true");
    }
    command
        .arg(job)
        .arg(told)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Error::failed(format!("cannot start `{program}`"))
            .with_source(error)
            .hint("install Spark (`pip install pyspark` brings it, and it needs Java), or name it with `spark.submit`")
    })?;
    let log = child.stderr.take();
    let progress = printer.progress("Spark works", None);
    let ticking = progress.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut last: Vec<String> = Vec::new();
        for line in log
            .into_iter()
            .flat_map(|log| BufReader::new(log).lines())
            .map_while(std::io::Result::ok)
        {
            tracing::debug!(target: "spark", line);
            ticking.add(1);
            if line.contains("Error") || line.contains("Exception") || line.contains(" ERROR ") {
                last.push(line);
            }
        }
        last
    });
    let said = tokio::select! {
        said = reading => said.context(|| "reading Spark's log was interrupted")?,
        () = crate::base::shutdown::shutdown_signal() => {
            stop(&mut child);
            return Err(Error::failed("stopped; no answer was written").hint("run it again"));
        }
    };
    progress.finish();
    let status = child
        .wait()
        .context(|| format!("cannot wait for `{program}`"))?;
    if status.success() {
        return Ok(());
    }
    let shown: String = said
        .iter()
        .take(SHOWN_LINES)
        .map(|line| format!("\n  {}", line.trim()))
        .collect();
    Err(Error::failed(format!("Spark ended with {status}{shown}"))
        .hint("`-vv` shows its whole log"))
}

fn stop(child: &mut Child) {
    // Both may fail only where it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

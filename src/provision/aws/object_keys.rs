//! Keys of the objects that `provision` uploads into buckets.

/// Folder of the connector's zip in the lake's bucket.
pub const PLUGIN_FOLDER: &str = "kafka-connect-s3";
/// Key of the requirements file in Airflow's bucket.
pub const REQUIREMENTS: &str = "requirements.txt";

/// Whether an object is the connector's zip, from the current or an earlier configuration.
pub fn is_zip(key: &str) -> bool {
    key.strip_prefix(PLUGIN_FOLDER)
        .is_some_and(|file| file.starts_with('/') && file.ends_with(".zip"))
}

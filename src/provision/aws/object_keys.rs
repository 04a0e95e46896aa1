//! Keys of the objects that `provision` uploads into buckets.

/// Folder of the object in the bucket.
pub const PLUGIN_FOLDER: &str = "kafka-connect-s3";
/// Key of the file in Airflow's bucket.
pub const REQUIREMENTS: &str = "requirements.txt";

/// Whether an object of the bucket is the connector's zip, of now or of an earlier configuration.
pub fn is_zip(key: &str) -> bool {
    key.strip_prefix(PLUGIN_FOLDER)
        .is_some_and(|file| file.starts_with('/') && file.ends_with(".zip"))
}

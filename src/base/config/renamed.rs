//! Former names of configuration keys, which are still accepted, with a warning.

use toml::{Table, Value};

/// Former and present names, both in the same section.
const RENAMED: [(&str, &str); 5] = [
    ("provision.parallel", "provision.max_concurrency"),
    ("provision.wait_minutes", "provision.operation_timeout_minutes"),
    ("provision.poll_ms", "provision.poll_interval_ms"),
    ("provision.patience_ms", "provision.consistency_timeout_ms"),
    ("databricks.poll_ms", "databricks.poll_interval_ms"),
];

/// The use of a former name.
#[derive(Debug)]
pub struct Renaming {
    pub former: &'static str,
    pub present: &'static str,
    /// Where the former name was found: a file or an environment variable.
    pub origin: String,
    /// Whether the value of the former name is used. The present name takes precedence if both
    /// are set.
    pub is_effective: bool,
}

impl Renaming {
    pub fn warning(&self) -> String {
        let Self { former, present, origin, .. } = self;
        format!("{origin}: `{former}` is deprecated: use `{present}`")
    }

    /// Returns the message with the key named as the user wrote it.
    pub fn as_written(&self, message: &str) -> String {
        if self.is_effective {
            message.replace(&format!("`{}`", self.present), &format!("`{}`", self.former))
        } else {
            message.to_string()
        }
    }
}

/// The former and the present name of a key that was renamed.
pub fn renamed_key(path: &str) -> Option<(&'static str, &'static str)> {
    RENAMED.into_iter().find(|(former, _)| *former == path)
}

/// Moves the values of former names to the present names, unless the present name has a value.
/// Returns the former names that the table contained.
pub fn rename_keys(table: &mut Table, origin: &str) -> Vec<Renaming> {
    let mut renamed = Vec::new();
    for (former, present) in RENAMED {
        let (section, former_key) = former.split_once('.').unwrap_or(("", former));
        let (_, present_key) = present.split_once('.').unwrap_or(("", present));
        if let Some(Value::Table(section)) = table.get_mut(section)
            && let Some(value) = section.remove(former_key)
        {
            let is_effective = !section.contains_key(present_key);
            if is_effective {
                section.insert(present_key.into(), value);
            }
            renamed.push(Renaming { former, present, origin: origin.into(), is_effective });
        }
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::LOCAL_TOML;

    #[test]
    fn former_keys_are_moved_and_named() {
        let mut table: Table = "[provision]\nparallel = 3\n".parse().expect("parses");
        let renamed = rename_keys(&mut table, "`pinpipe.toml`");
        assert_eq!(table["provision"]["max_concurrency"].as_integer(), Some(3));
        assert_eq!(
            renamed[0].warning(),
            "`pinpipe.toml`: `provision.parallel` is deprecated: use `provision.max_concurrency`"
        );
        let message = "`provision.max_concurrency`: expected 1 to 64, got `0`";
        assert_eq!(
            renamed[0].as_written(message),
            "`provision.parallel`: expected 1 to 64, got `0`"
        );
        assert!(rename_keys(&mut table, "`pinpipe.toml`").is_empty());
    }

    #[test]
    fn value_of_the_present_name_takes_precedence() {
        let both = "[provision]\nparallel = 3\nmax_concurrency = 0\n";
        let mut table: Table = both.parse().expect("parses");
        let renamed = rename_keys(&mut table, "`pinpipe.toml`");
        assert_eq!(table["provision"]["max_concurrency"].as_integer(), Some(0));
        let message = "`provision.max_concurrency`: expected 1 to 64, got `0`";
        assert_eq!(renamed[0].as_written(message), message);
    }

    #[test]
    fn present_names_exist_and_former_ones_do_not() {
        let defaults: Table = LOCAL_TOML.parse().expect("parses");
        let parts = |path: &'static str| path.split_once('.').expect("section.key");
        let exists = |path| {
            let (section, key) = parts(path);
            defaults[section].get(key).is_some()
        };
        for (former, present) in RENAMED {
            assert!(exists(present) && !exists(former), "{former} → {present}");
            // `rename_keys` moves no value to another section.
            assert_eq!(parts(former).0, parts(present).0, "{former} → {present}");
        }
    }
}

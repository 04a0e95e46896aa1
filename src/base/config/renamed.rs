//! Former names of configuration keys, which still work with a warning.

use toml::{Table, Value};

/// Former and present names.
const RENAMED: [(&str, &str); 5] = [
    ("provision.parallel", "provision.max_concurrency"),
    ("provision.wait_minutes", "provision.operation_timeout_minutes"),
    ("provision.poll_ms", "provision.poll_interval_ms"),
    ("provision.patience_ms", "provision.consistency_timeout_ms"),
    ("databricks.poll_ms", "databricks.poll_interval_ms"),
];

/// The present name of a key that was renamed.
pub fn present_name(path: &str) -> Option<&'static str> {
    RENAMED.iter().find(|(former, _)| *former == path).map(|(_, present)| *present)
}

/// The warning about a former name.
pub fn warning(origin: &str, former: &str, present: &str) -> String {
    format!("{origin}: `{former}` is deprecated: use `{present}`")
}

/// Moves the values of former keys to their present names. Returns both names of each; a value
/// that the present key already has wins.
pub fn rename_keys(table: &mut Table) -> Vec<(&'static str, &'static str)> {
    let mut renamed = Vec::new();
    for (former, present) in RENAMED {
        let (section, former_key) = former.split_once('.').unwrap_or(("", former));
        let (_, present_key) = present.split_once('.').unwrap_or(("", present));
        if let Some(Value::Table(section)) = table.get_mut(section)
            && let Some(value) = section.remove(former_key)
        {
            section.entry(present_key).or_insert(value);
            renamed.push((former, present));
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
        assert_eq!(rename_keys(&mut table), [("provision.parallel", "provision.max_concurrency")]);
        assert_eq!(table["provision"]["max_concurrency"].as_integer(), Some(3));
        assert_eq!(rename_keys(&mut table), []);
    }

    #[test]
    fn present_names_exist_and_former_ones_do_not() {
        let defaults: Table = LOCAL_TOML.parse().expect("parses");
        let exists = |path: &str| {
            let (section, key) = path.split_once('.').expect("section.key");
            defaults[section].get(key).is_some()
        };
        for (former, present) in RENAMED {
            assert!(exists(present) && !exists(former), "{former} → {present}");
        }
    }
}

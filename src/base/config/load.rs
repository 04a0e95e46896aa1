//! Reads, merges and checks the configuration from defaults, file, environment and flags; reports
//! all errors at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::base::checksum;
use crate::base::config::LOCAL_TOML;
use crate::base::config::check::check;
use crate::base::config::renamed::{Renaming, rename_keys, renamed_key};
use crate::base::config::schema::{Config, Secrets};
use crate::base::error::{Error, Result};

/// Sections that accept any key, with strings as values.
const FREE_FORM: [&str; 3] = ["connector.properties", "connector.worker_properties", "aws.tags"];

/// Splits the path of a key in a free-form section into outer section, inner section and key.
fn free_form(path: &str) -> Option<(&str, &str, &str)> {
    FREE_FORM.iter().find_map(|section| {
        let key = path.strip_prefix(section)?.strip_prefix('.')?;
        let (outer, inner) = section.split_once('.')?;
        Some((outer, inner, key))
    })
}

/// Global flags that override the configuration.
#[derive(Debug, Default)]
pub struct Overrides {
    /// `--config FILE` or `PINPIPE_CONFIG`; an empty path means no file.
    pub file: Option<PathBuf>,
    /// `--data-dir DIR`.
    pub data_dir: Option<PathBuf>,
}

/// Configuration file that is read without `--config`, if it exists.
const DEFAULT_FILE: &str = "pinpipe.toml";
/// Environment variables of pinpipe that set no configuration key.
const OTHER_VARIABLES: [&str; 5] = [
    "PINPIPE_CONFIG",
    "PINPIPE_LOG",
    "PINPIPE_DATABASE_PASSWORD",
    "PINPIPE_KAFKA_PASSWORD",
    "PINPIPE_GATEWAY_API_KEY",
];
/// Prefix of environment variables that set a key.
const VARIABLE_PREFIX: &str = "PINPIPE__";

/// Merges the built-in default, the file, the environment and the flags, in this order.
///
/// # Errors
/// The file or `.env` cannot be read or parsed; a key is unknown; a value is invalid. All are usage
/// errors.
pub fn load(overrides: &Overrides) -> Result<Config> {
    let ignored_variables = read_dot_env()?;
    let (mut problems, mut renamed) = (Vec::new(), Vec::new());
    let mut merged = defaults();
    let file = match overrides.file.as_ref().filter(|file| !file.as_os_str().is_empty()) {
        Some(file) => Some(file.clone()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists()),
    };
    if let Some(file) = &file {
        let (mut table, mut lines) = parse(file)?;
        renamed = rename_keys(&mut table, &format!("`{}`", file.display()));
        for renaming in renamed.iter().filter(|renaming| renaming.is_effective) {
            let line = lines.get(renaming.former).copied();
            lines.extend(line.map(|line| (renaming.present.to_string(), line)));
        }
        let origin = |key: &str| match lines.get(key) {
            Some(line) => format!("`{}` line {line}", file.display()),
            None => format!("`{}`", file.display()),
        };
        reject_secrets(&table, &mut problems);
        merge(&mut merged, table, "", &origin, &mut problems);
    }
    let environment = from_environment(variables(), &merged, &mut problems, &mut renamed);
    for (path, value) in environment {
        set(&mut merged, &path, value);
    }
    if let Some(data_dir) = &overrides.data_dir {
        merged.insert("data_dir".into(), Value::String(data_dir.to_string_lossy().into_owned()));
    }
    let checksum = checksum_of(&merged);
    let mut config = match Config::deserialize_from(merged, &mut problems) {
        Some(config) if problems.is_empty() => config,
        _ => return Err(report(problems, file.as_deref(), &renamed)),
    };
    config.secrets = secrets();
    config.checksum = checksum;
    config.warnings = ignored_variables;
    config.warnings.extend(misspelled_variables(variables()));
    config.warnings.extend(renamed.iter().map(Renaming::warning));
    check(&config, &mut problems);
    if problems.is_empty() { Ok(config) } else { Err(report(problems, file.as_deref(), &renamed)) }
}

/// Checksum of the configuration without `[database]`, whose URL may contain a password.
fn checksum_of(merged: &Table) -> String {
    let mut without_database = merged.clone();
    without_database.remove("database");
    checksum::short(&without_database.to_string())
}

fn defaults() -> Table {
    LOCAL_TOML.parse().expect("config/local.toml is compiled in, and a test parses it")
}

impl Config {
    fn deserialize_from(table: Table, problems: &mut Vec<String>) -> Option<Config> {
        match Value::Table(table).try_into() {
            Ok(config) => Some(config),
            Err(error) => {
                if problems.is_empty() {
                    problems.push(first_line(&error));
                }
                None
            }
        }
    }
}

fn first_line(error: &toml::de::Error) -> String {
    error.message().lines().next().unwrap_or_default().to_string()
}

/// Adds the variables of pinpipe in `.env` of the current folder to the environment; variables that
/// are set have priority. Returns a warning for each variable of AWS or Databricks that `.env` may
/// not set.
fn read_dot_env() -> Result<Vec<String>> {
    let text = match std::fs::read_to_string(".env") {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::usage("cannot read `.env`").with_source(error)),
    };
    let mut warnings = Vec::new();
    for variable in dotenvy::from_read_iter(text.trim_start_matches('\u{feff}').as_bytes()) {
        let (name, value) = variable.map_err(|error| match error {
            // The message does not quote the invalid line, because it may contain a secret.
            dotenvy::Error::LineParse(_, position) => Error::usage(format!(
                "cannot read `.env`: expected NAME=value (error at character {position} of a line)"
            ))
            .hint("put values that contain spaces, `$` or `#` in single quotes"),
            error => Error::usage("cannot read `.env`").with_source(error),
        })?;
        if !may_be_in_dot_env(&name) {
            if name.starts_with("AWS_") || name.starts_with("DATABRICKS_") {
                warnings.push(format!("`.env`: `{name}` is ignored: set it in the environment"));
            }
        } else if std::env::var_os(&name).is_none() {
            // SAFETY: the configuration is read before the command starts any work; until then, no
            // other thread reads or changes the environment.
            unsafe { std::env::set_var(&name, value) };
        }
    }
    Ok(warnings)
}

/// Whether `.env` may set a variable. A folder may contain the `.env` of another user, in which
/// any other variable could make pinpipe run that user's programs: AWS_CONFIG_FILE names a file
/// with commands, PATH a folder with them.
fn may_be_in_dot_env(name: &str) -> bool {
    const OF_OTHER_TOOLS: [&str; 8] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
        "DATABRICKS_HOST",
        "DATABRICKS_TOKEN",
    ];
    name.starts_with("PINPIPE_") || OF_OTHER_TOOLS.contains(&name)
}

/// Returns the keys of the file, and the line number of each.
fn parse(file: &Path) -> Result<(Table, BTreeMap<String, usize>)> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::usage(format!(
            "cannot read the configuration `{}`",
            file.display()
        ))
        .hint(if error.kind() == std::io::ErrorKind::NotFound {
            "correct the path in `--config` or PINPIPE_CONFIG; `pinpipe init` writes a `pinpipe.toml`"
        } else {
            "grant read permission on the file, or choose another one with `--config`"
        })
        .with_source(error)
    })?;
    let table = text.parse::<Table>().map_err(|error| {
        let position = error.span().map(|span| {
            let before = &text[..span.start.min(text.len())];
            let line = line_at(&text, span.start);
            let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
            format!(" (line {line}, column {column})")
        });
        Error::usage(format!(
            "`{}` is not valid TOML{}: {}",
            file.display(),
            position.unwrap_or_default(),
            first_line(&error)
        ))
        .hint("put strings in double quotes: key = \"value\"; `pinpipe init` writes an example")
    })?;
    let mut lines = BTreeMap::new();
    if let Ok(spanned) = DeTable::parse(&text) {
        record_lines(spanned.get_ref(), "", &text, &mut lines);
    }
    Ok((table, lines))
}

fn record_lines(table: &DeTable<'_>, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let full_path = join_path(path, key.get_ref());
        lines.insert(full_path.clone(), line_at(text, key.span().start));
        if let DeValue::Table(inner) = value.get_ref() {
            record_lines(inner, &full_path, text, lines);
        }
    }
}

fn line_at(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1
}

fn join_path(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

/// Merges `given` into `base`, which contains every valid key. Each key is validated separately,
/// so that all errors are reported at once.
fn merge(
    base: &mut Table,
    given: Table,
    path: &str,
    origin: &dyn Fn(&str) -> String,
    problems: &mut Vec<String>,
) {
    // `topics` and `topics.regex` exclude each other: a given `topics` replaces the default
    // `topics.regex`.
    if path == "connector.properties"
        && given.contains_key("topics")
        && !given.contains_key("topics.regex")
    {
        base.remove("topics.regex");
    }
    for (key, value) in given {
        let full_path = join_path(path, &key);
        let free_form = FREE_FORM.contains(&path);
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => {
                merge(inner, value, &full_path, origin, problems)
            }
            (Some(Value::Table(_)), other) => {
                problems.push(format!(
                    "{}: `{full_path}`: expected a section, got {}",
                    origin(&full_path),
                    other.type_str()
                ));
            }
            (None, _) if !free_form => problems.push(unknown_key(&full_path, &origin(&full_path))),
            (_, value) => {
                insert_if_valid(base, &full_path, key, value, &origin(&full_path), problems)
            }
        }
    }
}

fn insert_if_valid(
    base: &mut Table,
    full_path: &str,
    key: String,
    value: Value,
    origin: &str,
    problems: &mut Vec<String>,
) {
    // Floats accept integers; the strings of free-form sections accept integers and booleans.
    let value = match (base.get(&key), value) {
        (Some(Value::Float(_)), Value::Integer(number)) => Value::Float(number as f64),
        (_, value) if free_form(full_path).is_some() => match value {
            Value::Integer(number) => Value::String(number.to_string()),
            Value::Boolean(flag) => Value::String(flag.to_string()),
            value => value,
        },
        (_, value) => value,
    };
    match value_problem(full_path, &value) {
        Some(problem) => problems.push(format!("{origin}: `{full_path}`: {problem}")),
        None => {
            base.insert(key, value);
        }
    }
}

/// Returns what is wrong with the value of a key; `None` if the value is valid.
fn value_problem(path: &str, value: &Value) -> Option<String> {
    if value.is_table() {
        return Some("expected a value, got a section".into());
    }
    let message = value_error(path, value)?;
    if path == "database.url" {
        // The value may contain a password.
        return Some("expected a string in double quotes".into());
    }
    // serde lists the values of an enumeration only if the given value is a string.
    let is_scalar = !value.is_array() && get(&defaults(), path).is_some_and(Value::is_str);
    let message_for_string =
        if is_scalar { value_error(path, &Value::String(shown(value))) } else { None };
    Some(reworded(&message_for_string.unwrap_or(message), value))
}

/// Returns the message of serde for a value that the key does not accept.
fn value_error(path: &str, value: &Value) -> Option<String> {
    let mut table = defaults();
    set(&mut table, path, value.clone());
    Value::Table(table).try_into::<Config>().err().map(|error| first_line(&error))
}

/// The value as the user wrote it, without quotes.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Rewords a message of serde such as `invalid type: string "fast", expected f64`, which names
/// Rust types.
fn reworded(message: &str, value: &Value) -> String {
    let Some((unexpected, expected)) = message.rsplit_once(", expected ") else {
        return message.to_string();
    };
    let expected = match expected {
        "u16" => "a number from 0 to 65535",
        "u32" => "a number from 0 to 4294967295",
        "i32" => "a number from -2147483648 to 2147483647",
        "u64" | "usize" => "a whole number, 0 or more",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "string only" | "path string" => "a string in double quotes",
        "a sequence" => "a list such as [\"a\", \"b\"]",
        // The values of an enumeration.
        expected => expected,
    };
    // For a list, the message of serde quotes the invalid item.
    let item = unexpected.split(['`', '"']).nth(1).filter(|_| value.is_array());
    format!("expected {expected}, got `{}`", item.map_or_else(|| shown(value), String::from))
}

fn unknown_key(key: &str, origin: &str) -> String {
    let keys = known_keys();
    let name = last_part(key);
    let nearest = nearest(key, name.len(), keys.iter().map(String::as_str)).or_else(|| {
        // The key of the same name in another section, if exactly one section has it.
        let mut of_that_name = keys.iter().filter(|candidate| last_part(candidate) == name);
        of_that_name.next().filter(|_| of_that_name.next().is_none()).map(String::as_str)
    });
    let suggestion = nearest.map(did_you_mean).unwrap_or_default();
    format!("{origin}: unknown key `{key}`{suggestion}")
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn did_you_mean(name: &str) -> String {
    format!(", did you mean `{name}`?")
}

/// Returns the known name that `name` most likely misspells. It may differ by one edit for every
/// three of the `significant` characters.
fn nearest<'a>(
    name: &str,
    significant: usize,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(candidate, name), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= ((significant + 1) / 3).max(1))
        .map(|(_, candidate)| candidate)
}

/// Returns every key as `section.key`, and every section.
fn known_keys() -> Vec<String> {
    fn walk(table: &Table, path: &str, keys: &mut Vec<String>) {
        for (key, value) in table {
            let full_path = join_path(path, key);
            if let Value::Table(inner) = value
                && full_path != "connector.properties"
            {
                walk(inner, &full_path, keys);
            }
            keys.push(full_path);
        }
    }
    let mut keys = Vec::new();
    walk(&defaults(), "", &mut keys);
    keys
}

/// Returns the environment without variables that are not UTF-8, which pinpipe never reads.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Returns the environment variable that sets a key.
fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Returns a warning for each environment variable that begins with `PINPIPE_`, but neither sets a
/// key nor has another meaning: the variable is most likely misspelled.
fn misspelled_variables(variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let is_misspelled = |name: &String| {
        name.starts_with("PINPIPE_")
            && !name.starts_with(VARIABLE_PREFIX)
            && !OTHER_VARIABLES.contains(&name.as_str())
    };
    let names: Vec<String> = variables.map(|(name, _)| name).filter(is_misspelled).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let known: Vec<String> = known_keys()
        .iter()
        .map(|key| variable_of(key))
        .chain(OTHER_VARIABLES.iter().map(|name| (*name).to_string()))
        .collect();
    let warning = |name: &String| {
        // The most common mistake is a wrong number of underscores.
        let same_letters =
            known.iter().find(|known| known.replace('_', "") == name.replace('_', ""));
        let significant = name.len() - "PINPIPE_".len();
        let likely = same_letters
            .map(String::as_str)
            .or_else(|| nearest(name, significant, known.iter().map(String::as_str)));
        format!(
            "unknown environment variable `{name}`{}",
            likely.map(did_you_mean).unwrap_or_default()
        )
    };
    names.iter().map(warning).collect()
}

/// Returns the keys that environment variables set: `PINPIPE__EMULATE__RATE=5` sets `emulate.rate`.
fn from_environment(
    variables: impl Iterator<Item = (String, String)>,
    base: &Table,
    problems: &mut Vec<String>,
    renamed: &mut Vec<Renaming>,
) -> Vec<(String, Value)> {
    let variables: Vec<(String, String)> = variables.collect();
    let names: BTreeSet<String> = variables.iter().map(|(name, _)| name.clone()).collect();
    let mut values = Vec::new();
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(VARIABLE_PREFIX) else {
            continue;
        };
        let mut path = path.to_lowercase().replace("__", ".");
        let origin = format!("environment variable `{name}`");
        if let Some((former, present)) = renamed_key(&path) {
            // The present name takes precedence, regardless of the order of the variables.
            let is_effective = !names.contains(&variable_of(present));
            renamed.push(Renaming { former, present, origin: origin.clone(), is_effective });
            if !is_effective {
                continue;
            }
            path = present.into();
        }
        let Some(current) = get(base, &path) else {
            problems.push(unknown_key(&path, &origin));
            continue;
        };
        let parsed = match current {
            Value::Integer(_) => text.parse().ok().map(Value::Integer),
            Value::Float(_) => text.parse().ok().map(Value::Float),
            Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
            Value::Table(_) => {
                problems.push(format!("{origin}: `{path}` is a section: set one of its keys"));
                continue;
            }
            Value::Array(_) => Some(Value::Array(
                text.split(',').map(|part| Value::String(part.trim().to_string())).collect(),
            )),
            _ => None,
        };
        // A string that cannot be parsed as the key's type is rejected like any invalid value.
        let value = parsed.unwrap_or(Value::String(text));
        match value_problem(&path, &value) {
            Some(problem) => problems.push(format!("{origin}: `{path}`: {problem}")),
            None => values.push((path, value)),
        }
    }
    values
}

fn get<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
    }
}

fn set(table: &mut Table, path: &str, value: Value) {
    // Keys of free-form sections contain dots.
    if let Some((section, inner, key)) = free_form(path) {
        if let Some(Value::Table(section)) = table.get_mut(section)
            && let Some(Value::Table(inner)) = section.get_mut(inner)
        {
            inner.insert(key.to_string(), value);
        }
        return;
    }
    match path.split_once('.') {
        None => {
            table.insert(path.to_string(), value);
        }
        Some((section, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(section) {
                set(inner, rest, value);
            }
        }
    }
}

/// Rejects a password in the file, because the file may be committed to a repository.
fn reject_secrets(table: &Table, problems: &mut Vec<String>) {
    if get(table, "database.url")
        .and_then(Value::as_str)
        .is_some_and(crate::base::config::secret::has_password)
    {
        problems.push(
            "`database.url` contains a password: remove it from the file and set \
             PINPIPE_DATABASE_PASSWORD in the environment or `.env`"
                .into(),
        );
    }
}

fn secrets() -> Secrets {
    let secret = |name: &str| {
        std::env::var(name).ok().filter(|value| !value.is_empty()).map(SecretString::from)
    };
    Secrets {
        database_password: secret("PINPIPE_DATABASE_PASSWORD"),
        kafka_password: secret("PINPIPE_KAFKA_PASSWORD"),
        gateway_api_key: secret("PINPIPE_GATEWAY_API_KEY"),
        // The variable that the Databricks CLI and SDKs read.
        databricks_token: secret("DATABRICKS_TOKEN"),
    }
}

fn report(problems: Vec<String>, file: Option<&Path>, renamed: &[Renaming]) -> Error {
    let as_written = |problem: String| {
        renamed.iter().fold(problem, |problem, renaming| renaming.as_written(&problem))
    };
    let mut problems: Vec<String> = problems.into_iter().map(as_written).collect();
    let hint = match file {
        Some(_) => "run `pinpipe init --target local --print` to see every key with its default",
        None => "check the environment variables that start with PINPIPE__",
    };
    if problems.len() == 1 {
        return Error::usage(problems.remove(0)).hint(hint);
    }
    let list: String = problems.iter().map(|problem| format!("\n  - {problem}")).collect();
    Error::usage(format!("the configuration has {} errors{list}", problems.len())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str) -> (Table, Vec<String>) {
        let mut problems = Vec::new();
        let mut base = defaults();
        merge(
            &mut base,
            text.parse().expect("test TOML parses"),
            "",
            &|_| "test".into(),
            &mut problems,
        );
        (base, problems)
    }

    #[test]
    fn built_in_default_is_complete_and_valid() {
        let mut problems = Vec::new();
        let config =
            Config::deserialize_from(defaults(), &mut problems).expect("defaults deserialize");
        check(&config, &mut problems);
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn aws_example_contains_only_known_keys() {
        let (_, problems) = merged(crate::base::config::AWS_TOML);
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn reports_all_errors_at_once_with_the_nearest_key() {
        let (_, problems) = merged(
            "[emulate]\nconcurency = 4\nrate = \"fast\"\nto = \"nowhere\"\n[kafkaa]\nx = 1\n",
        );
        assert_eq!(problems.len(), 4, "{problems:#?}");
        assert!(
            problems
                .iter()
                .any(|p| p.contains("`emulate.concurency`, did you mean `emulate.concurrency`?")),
            "{problems:#?}"
        );
        assert!(
            problems.iter().any(|p| p.contains("`kafkaa`, did you mean `kafka`?")),
            "{problems:#?}"
        );
        assert!(
            problems.iter().any(|p| p.ends_with(
                "`emulate.to`: expected one of `kafka`, `kinesis`, `both`, got `nowhere`"
            )),
            "{problems:#?}"
        );
        assert!(
            problems.iter().any(|p| p.ends_with("`emulate.rate`: expected a number, got `fast`")),
            "{problems:#?}"
        );
    }

    #[test]
    fn suggestions_are_close_or_in_another_section() {
        for (text, expected) in [
            ("rate = 3", "unknown key `rate`, did you mean `emulate.rate`?"),
            ("[kafka]\nraet = 3", "unknown key `kafka.raet`"),
            ("[emulate]\nxy = 3", "unknown key `emulate.xy`"),
            (
                "[stream]\ninterval = 3",
                "unknown key `stream.interval`, did you mean `stream.interval_ms`?",
            ),
        ] {
            let (_, problems) = merged(text);
            assert_eq!(problems, [format!("test: {expected}")]);
        }
    }

    #[test]
    fn no_message_names_a_rust_type() {
        let mut leaves = Vec::new();
        for key in known_keys() {
            if get(&defaults(), &key).is_some_and(|value| !value.is_table()) {
                leaves.push(key);
            }
        }
        assert!(leaves.len() > 80, "{leaves:?}");
        let wrong_values = [
            Value::Integer(-5_000_000_000),
            Value::String("no such value".into()),
            Value::Boolean(true),
            Value::Array(vec![Value::Integer(1)]),
        ];
        let rust_terms = [
            "usize",
            "u16",
            "u32",
            "u64",
            "i32",
            "i64",
            "f64",
            "struct",
            "invalid",
            "variant",
            "sequence",
            "string only",
            "path string",
            "enum",
            "map",
        ];
        for key in &leaves {
            for value in &wrong_values {
                let problem = value_problem(key, value).unwrap_or_default();
                let expected = problem.split(", got ").next().unwrap_or_default();
                assert!(
                    !rust_terms.iter().any(|word| expected.contains(word)),
                    "{key} = {value}: {problem}"
                );
            }
        }
    }

    #[test]
    fn accepts_integers_for_floats_and_properties() {
        let (table, problems) =
            merged("[emulate]\nrate = 5\n[connector.properties]\n\"flush.size\" = 10\n");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(get(&table, "emulate.rate"), Some(&Value::Float(5.0)));
        assert_eq!(table["connector"]["properties"]["flush.size"].as_str(), Some("10"));
    }

    #[test]
    fn variables_set_keys_and_unknown_keys_are_reported() {
        let mut problems = Vec::new();
        let variables = [
            ("PINPIPE__EMULATE__RATE", "5"),
            ("PINPIPE__EMULATE__RAET", "5"),
            ("PINPIPE__LOCAL__KAFKA_PORT", "x"),
            ("HOME", "/"),
        ];
        let values = from_environment(
            variables.iter().map(|(k, v)| (k.to_string(), v.to_string())),
            &defaults(),
            &mut problems,
            &mut Vec::new(),
        );
        assert_eq!(values, vec![("emulate.rate".to_string(), Value::Float(5.0))]);
        assert_eq!(problems.len(), 2, "{problems:#?}");
        assert!(problems[0].contains("did you mean `emulate.rate`?"), "{problems:#?}");
        assert_eq!(
            problems[1],
            "environment variable `PINPIPE__LOCAL__KAFKA_PORT`: `local.kafka_port`: expected a \
             number from 0 to 65535, got `x`"
        );
    }

    #[test]
    fn misspelled_variables_are_reported_with_the_nearest_one() {
        let variables = [
            "PINPIPE_EMULATE_RATE",
            "PINPIPE_CONFIG",
            "PINPIPE__EMULATE__RATE",
            "HOME",
            "PINPIPE_X",
        ];
        let variables = variables.iter().map(|name| ((*name).to_string(), "5".to_string()));
        assert_eq!(
            misspelled_variables(variables),
            [
                "unknown environment variable `PINPIPE_EMULATE_RATE`, did you mean \
                 `PINPIPE__EMULATE__RATE`?",
                "unknown environment variable `PINPIPE_X`"
            ]
        );
    }

    #[test]
    fn dot_env_sets_variables_of_pinpipe_and_no_program() {
        for name in ["PINPIPE__ID", "PINPIPE_KAFKA_PASSWORD", "AWS_PROFILE", "DATABRICKS_TOKEN"] {
            assert!(may_be_in_dot_env(name), "{name}");
        }
        for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "PATH", "LD_PRELOAD", "HOME"]
        {
            assert!(!may_be_in_dot_env(name), "{name}");
        }
    }

    #[test]
    fn never_quotes_a_database_url_of_the_wrong_type() {
        let (_, problems) = merged("[database]\nurl = [\"mysql://me:hunter2@db/x\"]\n");
        assert_eq!(problems, ["test: `database.url`: expected a string in double quotes"]);
    }

    #[test]
    fn rejects_a_password_in_the_file_without_quoting_it() {
        let mut problems = Vec::new();
        let table: Table =
            "[database]\nurl = \"mysql://me:hunter2@db/x\"\n".parse().expect("parses");
        reject_secrets(&table, &mut problems);
        assert_eq!(problems.len(), 1);
        assert!(!problems[0].contains("hunter2"));
    }
}

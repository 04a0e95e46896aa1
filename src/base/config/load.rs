//! Reads, layers and checks the configuration; says everything that is wrong with it at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::base::checksum;
use crate::base::config::LOCAL_TOML;
use crate::base::config::check::check;
use crate::base::config::schema::{Config, Secrets};
use crate::base::error::{Error, Result};

/// Sections that take any key, with texts as values.
const FREE_FORM: [&str; 3] = [
    "connector.properties",
    "connector.worker_properties",
    "aws.tags",
];

/// A path inside such a section: outer section, inner section, key.
fn free_form(path: &str) -> Option<(&str, &str, &str)> {
    FREE_FORM.iter().find_map(|section| {
        let key = path.strip_prefix(section)?.strip_prefix('.')?;
        let (outer, inner) = section.split_once('.')?;
        Some((outer, inner, key))
    })
}

/// What the global flags say about the configuration.
#[derive(Debug, Default)]
pub struct Overrides {
    /// `--config FILE` or `PINPIPE_CONFIG`.
    pub file: Option<PathBuf>,
    /// `--data-dir DIR`.
    pub data_dir: Option<PathBuf>,
}

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "pinpipe.toml";
/// Prefix of variables that set a key.
const VARIABLE_PREFIX: &str = "PINPIPE__";

/// Layers the built-in default, the file, the environment and the flags.
///
/// # Errors
/// Usage errors: a file that cannot be read or parsed, unknown keys, wrong values.
pub fn load(overrides: &Overrides) -> Result<Config> {
    read_dot_env()?;
    let mut problems = Vec::new();
    let mut layers = defaults();
    let file = match &overrides.file {
        Some(file) => Some(file.clone()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists()),
    };
    if let Some(file) = &file {
        let (table, lines) = parse(file)?;
        let origin = |key: &str| match lines.get(key) {
            Some(line) => format!("`{}` line {line}", file.display()),
            None => format!("`{}`", file.display()),
        };
        refuse_secrets(&table, &mut problems);
        lay_over(&mut layers, table, "", &origin, &mut problems);
    }
    let environment = from_environment(variables(), &layers, &mut problems);
    for (path, value) in environment {
        set(&mut layers, &path, value);
    }
    if let Some(data_dir) = &overrides.data_dir {
        layers.insert(
            "data_dir".into(),
            Value::String(data_dir.to_string_lossy().into_owned()),
        );
    }
    let checksum = checksum_of(&layers);
    let mut config = match Config::deserialize_from(layers, &mut problems) {
        Some(config) if problems.is_empty() => config,
        _ => return Err(report(problems, file.as_deref())),
    };
    config.secrets = secrets();
    config.checksum = checksum;
    check(&config, &mut problems);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(report(problems, file.as_deref()))
    }
}

/// Checksum of everything that resources depend on: not of the source database, whose URL may
/// carry a password.
fn checksum_of(layers: &Table) -> String {
    let mut layers = layers.clone();
    layers.remove("database");
    checksum::short(&layers.to_string())
}

fn defaults() -> Table {
    LOCAL_TOML
        .parse()
        .expect("config/local.toml is part of the program and a test parses it")
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
    error
        .message()
        .lines()
        .next()
        .unwrap_or_default()
        .to_string()
}

/// Takes `.env` of the current folder into the environment; what is set already stays.
fn read_dot_env() -> Result<()> {
    match dotenvy::from_path(".env") {
        Ok(_) => Ok(()),
        Err(dotenvy::Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // The offending line may hold a secret, so it is not repeated.
        Err(dotenvy::Error::LineParse(_, position)) => Err(Error::usage(format!(
            "cannot read `.env`: a line is not NAME=value (error at character {position} of it)"
        ))
        .hint("put values with spaces, `$` or `#` between single quotes")),
        Err(error) => Err(Error::usage("cannot read `.env`").with_source(error)),
    }
}

/// The file's keys, and the line each stands on.
fn parse(file: &Path) -> Result<(Table, BTreeMap<String, usize>)> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::usage(format!(
            "cannot read the configuration `{}`",
            file.display()
        ))
        .with_source(error)
        .hint("`pinpipe init` writes one; without `--config` the built-in default is used")
    })?;
    let table = text.parse::<Table>().map_err(|error| {
        let place = error.span().map(|span| {
            let before = &text[..span.start.min(text.len())];
            let line = line_at(&text, span.start);
            let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
            format!(" (line {line}, column {column})")
        });
        Error::usage(format!(
            "`{}` is not valid TOML{}: {}",
            file.display(),
            place.unwrap_or_default(),
            first_line(&error)
        ))
        .hint(
            "texts stand between double quotes: key = \"value\"; `pinpipe init` writes an example",
        )
    })?;
    let mut lines = BTreeMap::new();
    if let Ok(spanned) = DeTable::parse(&text) {
        note_lines(spanned.get_ref(), "", &text, &mut lines);
    }
    Ok((table, lines))
}

fn note_lines(table: &DeTable<'_>, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let full = joined(path, key.get_ref());
        lines.insert(full.clone(), line_at(text, key.span().start));
        if let DeValue::Table(inner) = value.get_ref() {
            note_lines(inner, &full, text, lines);
        }
    }
}

fn line_at(text: &str, byte: usize) -> usize {
    text.bytes()
        .take(byte)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_string()
    } else {
        format!("{path}.{key}")
    }
}

/// Puts `over` on top of `base`, whose keys are all there are. Each key is tried
/// alone, so that every mistake is found in one go.
fn lay_over(
    base: &mut Table,
    over: Table,
    path: &str,
    origin: &dyn Fn(&str) -> String,
    problems: &mut Vec<String>,
) {
    // Either names the topics: the one that is given takes the place of the default's.
    if path == "connector.properties"
        && over.contains_key("topics")
        && !over.contains_key("topics.regex")
    {
        base.remove("topics.regex");
    }
    for (key, value) in over {
        let full = joined(path, &key);
        let free_form = FREE_FORM.contains(&path);
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => {
                lay_over(inner, value, &full, origin, problems)
            }
            (Some(Value::Table(_)), other) => {
                problems.push(format!(
                    "{}: `{full}` is a section, not a {}",
                    origin(&full),
                    other.type_str()
                ));
            }
            (None, _) if !free_form => problems.push(unknown(&full, &origin(&full))),
            (_, value) => try_key(base, &full, key, value, &origin(&full), problems),
        }
    }
}

fn try_key(
    base: &mut Table,
    full: &str,
    key: String,
    value: Value,
    origin: &str,
    problems: &mut Vec<String>,
) {
    // An integer where a fraction is meant, a number where the sink wants text: both are clear enough.
    let value = match (base.get(&key), value) {
        (Some(Value::Float(_)), Value::Integer(number)) => Value::Float(number as f64),
        (_, value) if free_form(full).is_some() => match value {
            Value::Integer(number) => Value::String(number.to_string()),
            Value::Boolean(flag) => Value::String(flag.to_string()),
            value => value,
        },
        (_, value) => value,
    };
    let mut whole = defaults();
    set(&mut whole, full, value.clone());
    let mut found = Vec::new();
    Config::deserialize_from(whole, &mut found);
    match found.pop() {
        Some(problem) => problems.push(format!("{origin}: `{full}`: {problem}")),
        None => {
            base.insert(key, value);
        }
    }
}

fn unknown(key: &str, origin: &str) -> String {
    let known = known_keys();
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, key), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= candidate.len().max(key.len()) / 3 + 1);
    match nearest {
        Some((_, candidate)) => {
            format!("{origin}: unknown key `{key}`, did you mean `{candidate}`?")
        }
        None => format!("{origin}: unknown key `{key}`"),
    }
}

/// Every key as `section.key`, and every section.
fn known_keys() -> Vec<String> {
    fn walk(table: &Table, path: &str, keys: &mut Vec<String>) {
        for (key, value) in table {
            let full = joined(path, key);
            if let Value::Table(inner) = value
                && full != "connector.properties"
            {
                walk(inner, &full, keys);
            }
            keys.push(full);
        }
    }
    let mut keys = Vec::new();
    walk(&defaults(), "", &mut keys);
    keys
}

/// The environment, without what is no text: none of ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// `PINPIPE__EMULATE__RATE=5` sets `emulate.rate`.
fn from_environment(
    variables: impl Iterator<Item = (String, String)>,
    base: &Table,
    problems: &mut Vec<String>,
) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(VARIABLE_PREFIX) else {
            continue;
        };
        let path = path.to_lowercase().replace("__", ".");
        let origin = format!("variable `{name}`");
        let Some(current) = get(base, &path) else {
            problems.push(unknown(&path, &origin));
            continue;
        };
        let value = match current {
            Value::Integer(_) => text.parse().ok().map(Value::Integer),
            Value::Float(_) => text.parse().ok().map(Value::Float),
            Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
            Value::Table(_) => None,
            Value::Array(_) => Some(Value::Array(
                text.split(',')
                    .map(|part| Value::String(part.trim().to_string()))
                    .collect(),
            )),
            _ => Some(Value::String(text.clone())),
        };
        let Some(value) = value else {
            problems.push(format!(
                "{origin}: `{path}` must be a {}",
                current.type_str()
            ));
            continue;
        };
        let mut whole = defaults();
        set(&mut whole, &path, value.clone());
        let mut wrong = Vec::new();
        Config::deserialize_from(whole, &mut wrong);
        match wrong.pop() {
            Some(problem) => problems.push(format!("{origin}: {problem}")),
            None => found.push((path, value)),
        }
    }
    found
}

fn get<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
    }
}

fn set(table: &mut Table, path: &str, value: Value) {
    // Keys of such sections hold dots themselves.
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

/// A password in a file ends up in a repository sooner or later.
fn refuse_secrets(table: &Table, problems: &mut Vec<String>) {
    if get(table, "database.url")
        .and_then(Value::as_str)
        .is_some_and(crate::base::config::secret::has_password)
    {
        problems.push(
            "`database.url` holds a password: take it out of the file and set PINPIPE_DATABASE_PASSWORD in the environment or `.env`"
                .into(),
        );
    }
}

fn secrets() -> Secrets {
    let secret = |name: &str| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.is_empty())
            .map(SecretString::from)
    };
    Secrets {
        database_password: secret("PINPIPE_DATABASE_PASSWORD"),
        kafka_password: secret("PINPIPE_KAFKA_PASSWORD"),
        gateway_api_key: secret("PINPIPE_GATEWAY_API_KEY"),
        // Databricks' own name for it.
        databricks_token: secret("DATABRICKS_TOKEN"),
    }
}

fn report(mut problems: Vec<String>, file: Option<&Path>) -> Error {
    let hint = match file {
        Some(_) => "`pinpipe init --target local --print` shows every key with its default",
        None => "check the variables that start with PINPIPE__",
    };
    if problems.len() == 1 {
        return Error::usage(problems.remove(0)).hint(hint);
    }
    let list: String = problems
        .iter()
        .map(|problem| format!("\n  - {problem}"))
        .collect();
    Error::usage(format!(
        "the configuration has {} mistakes{list}",
        problems.len()
    ))
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(text: &str) -> (Table, Vec<String>) {
        let mut problems = Vec::new();
        let mut base = defaults();
        lay_over(
            &mut base,
            text.parse().expect("test TOML parses"),
            "",
            &|_| "test".into(),
            &mut problems,
        );
        (base, problems)
    }

    #[test]
    fn built_in_default_is_a_whole_and_valid_configuration() {
        let mut problems = Vec::new();
        let config =
            Config::deserialize_from(defaults(), &mut problems).expect("defaults deserialize");
        check(&config, &mut problems);
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn aws_example_uses_only_keys_there_are() {
        let (_, problems) = laid(crate::base::config::AWS_TOML);
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn every_mistake_is_listed_at_once_with_the_nearest_key() {
        let (_, problems) =
            laid("[emulate]\nconcurency = 4\nrate = \"fast\"\nto = \"nowhere\"\n[kafkaa]\nx = 1\n");
        assert_eq!(problems.len(), 4, "{problems:#?}");
        assert!(
            problems
                .iter()
                .any(|p| p.contains("`emulate.concurency`, did you mean `emulate.concurrency`?")),
            "{problems:#?}"
        );
        assert!(
            problems
                .iter()
                .any(|p| p.contains("`kafkaa`, did you mean `kafka`?")),
            "{problems:#?}"
        );
        assert!(
            problems
                .iter()
                .any(|p| p.contains("`emulate.to`") && p.contains("nowhere")),
            "{problems:#?}"
        );
    }

    #[test]
    fn whole_numbers_do_for_fractions_and_properties() {
        let (table, problems) =
            laid("[emulate]\nrate = 5\n[connector.properties]\n\"flush.size\" = 10\n");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(get(&table, "emulate.rate"), Some(&Value::Float(5.0)));
        assert_eq!(
            table["connector"]["properties"]["flush.size"].as_str(),
            Some("10")
        );
    }

    #[test]
    fn variables_set_keys_and_unknown_ones_are_named() {
        let mut problems = Vec::new();
        let variables = [
            ("PINPIPE__EMULATE__RATE", "5"),
            ("PINPIPE__EMULATE__RAET", "5"),
            ("PINPIPE__LOCAL__KAFKA_PORT", "x"),
            ("HOME", "/"),
        ];
        let found = from_environment(
            variables
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string())),
            &defaults(),
            &mut problems,
        );
        assert_eq!(found, vec![("emulate.rate".to_string(), Value::Float(5.0))]);
        assert_eq!(problems.len(), 2, "{problems:#?}");
        assert!(
            problems[0].contains("did you mean `emulate.rate`?"),
            "{problems:#?}"
        );
    }

    #[test]
    fn a_password_in_the_file_is_refused_without_repeating_it() {
        let mut problems = Vec::new();
        let table: Table = "[database]\nurl = \"mysql://me:hunter2@db/x\"\n"
            .parse()
            .expect("parses");
        refuse_secrets(&table, &mut problems);
        assert_eq!(problems.len(), 1);
        assert!(!problems[0].contains("hunter2"));
    }
}

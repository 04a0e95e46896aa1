//! The whole of what a person sees: help and errors, as snapshots of the built binary.

use std::process::Command;

use assert_cmd::cargo::CommandCargoExt;

/// Runs the binary in an empty folder; returns everything it said and how it ended.
fn said(folder: &std::path::Path, arguments: &[&str]) -> String {
    let mut command =
        Command::cargo_bin("pinpipe").expect("cargo builds the binary before its tests");
    let environment = std::env::vars()
        .filter(|(name, _)| !name.starts_with("PINPIPE") && !name.starts_with("AWS_"));
    command
        .env_clear()
        .envs(environment)
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .current_dir(folder)
        .args(arguments);
    let output = command.output().expect("the binary starts");
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&*folder.to_string_lossy(), "FOLDER");
    let mut parts = vec![format!(
        "exit code: {}",
        output
            .status
            .code()
            .map_or("killed".into(), |code| code.to_string())
    )];
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            parts.push(format!("----- {name}\n{}", text(bytes).trim_end()));
        }
    }
    parts.join("\n")
}

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn help_says_what_each_subcommand_does_with_an_example_and_defaults() {
    let folder = empty();
    let commands = [
        "",
        "demo",
        "init",
        "seed",
        "local",
        "provision",
        "status",
        "topics",
        "topics create",
        "topics list",
        "topics describe",
        "topics delete",
        "connector create",
        "connector list",
        "connector status",
        "connector pause",
        "connector resume",
        "connector restart",
        "connector delete",
        "api deploy",
        "api list",
        "api status",
        "api url",
        "api delete",
        "connector",
        "api",
        "emulate",
        "batch",
        "batch schedule",
        "batch unschedule",
        "stream",
        "doctor",
        "destroy",
        "completions",
    ];
    for command in commands {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let text = said(folder.path(), &arguments);
        assert!(text.starts_with("exit code: 0"), "{command}: {text}");
        assert!(text.contains("Example"), "`{command}` shows no example");
        insta::assert_snapshot!(format!("help_{}", command.replace(' ', "_")), text);
    }
}

#[test]
fn every_mistake_in_a_configuration_is_told_at_once() {
    let folder = empty();
    let file = "target = \"locla\"\ncolour = \"red\"\n[emulate]\nconcurency = 3\nrate = \"fast\"\n[database]\nurl = \"mysql://me:hunter2@db/x\"\n";
    std::fs::write(folder.path().join("pinpipe.toml"), file).expect("writes");
    let text = said(folder.path(), &["batch"]);
    assert!(!text.contains("hunter2"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn no_subcommand_starts_with_a_wrong_configuration() {
    let folder = empty();
    std::fs::write(folder.path().join("pinpipe.toml"), "[emulate]\nraet = 1\n").expect("writes");
    for command in [
        "demo",
        "seed",
        "local",
        "provision",
        "provision --plan",
        "status",
        "topics list",
        "connector list",
        "connector status",
        "api url",
        "emulate",
        "batch",
        "batch schedule",
        "batch unschedule",
        "stream",
        "doctor",
        "destroy --yes",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        let text = said(folder.path(), &arguments);
        assert!(
            text.starts_with("exit code: 2") && text.contains("did you mean `emulate.rate`?"),
            "{command}: {text}"
        );
    }
    assert!(
        !folder.path().join(".pinpipe").exists(),
        "nothing was begun"
    );
}

#[test]
fn values_that_no_type_forbids_are_checked_too() {
    let folder = empty();
    let file = "id = \"no blanks\"\n[emulate]\nbatch = 501\n[kinesis]\nretention_hours = 1\nendpoint_url = \"localhost:1\"\n[database]\nurl = \"oracle://x\"\n";
    std::fs::write(folder.path().join("pinpipe.toml"), file).expect("writes");
    insta::assert_snapshot!(said(folder.path(), &["doctor"]));
}

#[test]
fn a_malformed_configuration_is_told_with_line_and_column() {
    let folder = empty();
    std::fs::write(
        folder.path().join("mine.toml"),
        "id = \"a\"\n[emulate\nrate = 1\n",
    )
    .expect("writes");
    insta::assert_snapshot!(said(folder.path(), &["seed", "--config", "mine.toml"]));
}

#[test]
fn a_configuration_that_is_not_there_is_told() {
    insta::assert_snapshot!(said(empty().path(), &["seed", "--config", "nowhere.toml"]));
}

#[test]
fn wrong_flags_end_with_two() {
    let folder = empty();
    for (name, arguments) in [
        ("unknown_subcommand", &["emulat"][..]),
        ("unknown_flag", &["emulate", "--post", "3"]),
        ("wrong_rows", &["emulate", "--rows", "7,x"]),
        ("wrong_duration", &["emulate", "--duration", "soon"]),
        ("posts_from_files", &["seed", "--posts", "3", "--from", "x"]),
    ] {
        let text = said(folder.path(), arguments);
        assert!(text.starts_with("exit code: 2"), "{text}");
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn init_writes_a_configuration_that_works_and_replaces_none() {
    let folder = empty();
    let text = said(folder.path(), &["init"]);
    assert!(text.starts_with("exit code: 0"), "{text}");
    let again = said(folder.path(), &["init"]);
    assert!(
        again.starts_with("exit code: 1") && again.contains("--force"),
        "{again}"
    );
    assert!(said(folder.path(), &["seed", "--posts", "3"]).starts_with("exit code: 0"));
    assert!(
        said(folder.path(), &["init", "--target", "aws", "--force"]).starts_with("exit code: 0")
    );
    // The example of an account is not whole until its placeholders are filled in.
    let unfilled = said(folder.path(), &["doctor"]);
    assert!(
        unfilled.starts_with("exit code: 2") && unfilled.contains("`id`"),
        "{unfilled}"
    );
}

#[test]
fn secrets_in_dot_env_are_read_and_a_broken_line_is_not_repeated() {
    let folder = empty();
    std::fs::write(folder.path().join(".env"), "PINPIPE__ID=from-dot-env\n").expect("writes");
    let text = said(folder.path(), &["batch", "--lake", "."]);
    assert!(text.contains("`from-dot-env`"), "{text}");
    std::fs::write(
        folder.path().join(".env"),
        "PASSWORD hunter2 without sign\n",
    )
    .expect("writes");
    let text = said(folder.path(), &["batch", "--lake", "."]);
    assert!(
        text.starts_with("exit code: 2") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn json_is_one_document_and_nothing_else() {
    let folder = empty();
    let text = said(
        folder.path(),
        &["seed", "--posts", "20", "--output", "json"],
    );
    let json = text
        .split_once("----- stdout\n")
        .expect("there is output")
        .1;
    let report: serde_json::Value = serde_json::from_str(json).expect("one JSON document");
    assert_eq!(report["posts"], 20);
}

#[test]
fn completions_name_the_subcommands() {
    let text = said(empty().path(), &["completions", "bash"]);
    assert!(text.contains("emulate") && text.starts_with("exit code: 0"));
}

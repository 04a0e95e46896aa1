//! Help and errors of the built binary, as snapshots.

use std::process::Command;

use assert_cmd::cargo::CommandCargoExt;

/// Runs the binary in a folder, returns its exit code, stdout and stderr.
fn run(folder: &std::path::Path, arguments: &[&str]) -> String {
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
        output.status.code().map_or("killed".into(), |code| code.to_string())
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
fn help_of_each_subcommand_has_an_example() {
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
        let text = run(folder.path(), &arguments);
        assert!(text.starts_with("exit code: 0"), "{command}: {text}");
        assert!(text.contains("Example"), "`{command}` shows no example");
        insta::assert_snapshot!(format!("help_{}", command.replace(' ', "_")), text);
    }
}

#[test]
fn all_mistakes_of_a_configuration_are_reported() {
    let folder = empty();
    let file = "target = \"locla\"\ncolour = \"red\"\n[emulate]\nconcurency = 3\nrate = \"fast\"\n[database]\nurl = \"mysql://me:hunter2@db/x\"\n";
    std::fs::write(folder.path().join("pinpipe.toml"), file).expect("writes");
    let text = run(folder.path(), &["batch"]);
    assert!(!text.contains("hunter2"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn no_subcommand_starts_with_an_invalid_configuration() {
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
        let text = run(folder.path(), &arguments);
        assert!(
            text.starts_with("exit code: 2") && text.contains("did you mean `emulate.rate`?"),
            "{command}: {text}"
        );
    }
    assert!(!folder.path().join(".pinpipe").exists(), "no data folder was created");
}

#[test]
fn values_are_validated() {
    let folder = empty();
    let file = "id = \"no blanks\"\n[emulate]\nbatch = 501\n[kinesis]\nretention_hours = 1\nendpoint_url = \"localhost:1\"\n[database]\nurl = \"oracle://x\"\n";
    std::fs::write(folder.path().join("pinpipe.toml"), file).expect("writes");
    insta::assert_snapshot!(run(folder.path(), &["doctor"]));
}

#[test]
fn malformed_configuration_is_reported_with_line_and_column() {
    let folder = empty();
    std::fs::write(folder.path().join("mine.toml"), "id = \"a\"\n[emulate\nrate = 1\n")
        .expect("writes");
    insta::assert_snapshot!(run(folder.path(), &["seed", "--config", "mine.toml"]));
}

#[test]
fn missing_configuration_is_reported() {
    insta::assert_snapshot!(run(empty().path(), &["seed", "--config", "nowhere.toml"]));
}

#[test]
fn invalid_flags_exit_with_two() {
    let folder = empty();
    for (name, arguments) in [
        ("unknown_subcommand", &["emulat"][..]),
        ("unknown_flag", &["emulate", "--post", "3"]),
        ("wrong_rows", &["emulate", "--rows", "7,x"]),
        ("wrong_duration", &["emulate", "--duration", "soon"]),
        ("posts_from_files", &["seed", "--posts", "3", "--from", "x"]),
    ] {
        let text = run(folder.path(), arguments);
        assert!(text.starts_with("exit code: 2"), "{text}");
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn invalid_numbers_are_rejected_in_words() {
    let folder = empty();
    for (arguments, expected) in [
        (&["seed", "--posts", "x"][..], "expected a whole number from 1 to 10000000"),
        (&["emulate", "--batch", "501"], "expected a whole number from 1 to 500"),
        (&["emulate", "--rate", "fast"], "expected a number such as 2 or 0.5"),
    ] {
        let text = run(folder.path(), arguments);
        assert!(text.starts_with("exit code: 2") && text.contains(expected), "{text}");
    }
}

#[test]
fn init_writes_a_valid_configuration_and_overwrites_none() {
    let folder = empty();
    let text = run(folder.path(), &["init"]);
    assert!(text.starts_with("exit code: 0"), "{text}");
    let again = run(folder.path(), &["init"]);
    assert!(again.starts_with("exit code: 1") && again.contains("--force"), "{again}");
    assert!(run(folder.path(), &["seed", "--posts", "3"]).starts_with("exit code: 0"));
    assert!(
        run(folder.path(), &["init", "--target", "aws", "--force"]).starts_with("exit code: 0")
    );
    // The example for AWS is invalid until its placeholders are replaced.
    let unfilled = run(folder.path(), &["doctor"]);
    assert!(unfilled.starts_with("exit code: 2") && unfilled.contains("`id`"), "{unfilled}");
}

#[test]
fn dot_env_is_read_and_an_invalid_line_is_not_printed() {
    let folder = empty();
    std::fs::write(folder.path().join(".env"), "PINPIPE__ID=from-dot-env\n").expect("writes");
    let text = run(folder.path(), &["batch", "--lake", "."]);
    assert!(text.contains("`from-dot-env`"), "{text}");
    std::fs::write(folder.path().join(".env"), "PASSWORD hunter2 without sign\n").expect("writes");
    let text = run(folder.path(), &["batch", "--lake", "."]);
    assert!(text.starts_with("exit code: 2") && !text.contains("hunter2"), "{text}");
}

#[test]
fn json_output_is_one_document() {
    let folder = empty();
    let text = run(folder.path(), &["seed", "--posts", "20", "--output", "json"]);
    let json = text.split_once("----- stdout\n").expect("there is output").1;
    let report: serde_json::Value = serde_json::from_str(json).expect("one JSON document");
    assert_eq!(report["posts"], 20);
}

#[test]
fn completions_name_the_subcommands() {
    let text = run(empty().path(), &["completions", "bash"]);
    assert!(text.contains("emulate") && text.starts_with("exit code: 0"));
}

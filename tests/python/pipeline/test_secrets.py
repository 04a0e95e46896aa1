"""Secrets: never shown, never sent to another host, never handed to a process that needs none.
And texts of others, whose control characters never reach the terminal.
"""

import contextlib
import csv
import http.server
import json
import os
import socket
import threading

import pytest
import requests

from support.lakes import write_lake
from support.sink_properties import PROPERTIES


@contextlib.contextmanager
def listener(respond):
    """A server on loopback: its address, and the headers of the requests so far. `respond` gives
    status, headers and body for a path.
    """
    requests_so_far = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests_so_far.append((self.path, dict(self.headers)))
            status, headers, body = respond(self.path)
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests_so_far
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mysql:me:hunter2@127.0.0.1/d", 2),
        ("postgres:/me:hunter2@127.0.0.1/d", 2),
        ("mysql://me:hunter2?x@127.0.0.1:1/d", 1),
        ("postgresql://me:p?hunter2@127.0.0.1:1/d", 1),
        ("postgresql://me:2?hunter2@127.0.0.1:1/d", 1),
    ],
)
def test_no_form_of_a_database_url_shows_its_password(pinpipe, url, code):
    # A number is taken for a port of host `me`, of which no port is reached.
    limit = {"PINPIPE__DATABASE__CONNECT_TIMEOUT_MS": 2000}
    for command in (["seed"], ["emulate", "-vvv"], ["doctor", "--output", "json"]):
        done = pinpipe.run(*command, code=code, env={"PINPIPE__DATABASE__URL": url, **limit})
        assert "hunter2" not in done.stdout + done.stderr, done.stdout + done.stderr
    (pinpipe.folder / "pinpipe.toml").write_text(f'[database]\nurl = "{url}"\n')
    done = pinpipe.run("seed", code=2)
    assert "PINPIPE_DATABASE_PASSWORD" in done.stderr and "hunter2" not in done.stderr


# Sets the title of the terminal, and its colour by a C1 character.
SEQUENCE = "\x1b]0;pwned\x07\x9b31m"


def lake_of_one_category(pinpipe, category):
    """Returns a lake of twenty posts that have one category."""
    pinpipe.run("seed", "--posts", 20)
    lake = pinpipe.folder / "lake"
    write_lake(pinpipe.data / "source.db", lake, 3)
    changed = 0
    for path in (lake / "topics" / "local.pin").rglob("*.json"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            record["category"] = category
            changed += 1
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert changed == 20
    return lake


def test_escape_sequences_of_records_do_not_reach_the_terminal(pinpipe):
    lake = lake_of_one_category(pinpipe, SEQUENCE)
    done = pinpipe.run("batch", "--lake", lake)
    assert "\ufffd]0;pwned\ufffd\ufffd31m" in done.stdout, done.stdout
    assert not set("\x1b\x07\x9b") & set(done.stdout + done.stderr), done.stdout
    # The rows are still the records' own.
    answers = json.dumps(pinpipe.json("batch", "--lake", lake), ensure_ascii=False)
    assert "\\u001b]0;pwned\\u0007\x9b31m" in answers


def test_escape_sequences_of_names_do_not_reach_the_terminal(local):
    name = f"a{SEQUENCE}"
    body = {"name": name, "config": {**PROPERTIES, "name": name}}
    reply = requests.post(f"http://{local.control}/connectors", json=body, timeout=20)
    # An endpoint that refuses the name keeps it off the terminal as well.
    assert reply.status_code in (201, 400), reply.text
    listed = local.pinpipe.run("connector", "list").stdout
    assert not set("\x1b\x07\x9b") & set(listed), listed
    # An error repeats what the user passed.
    done = local.pinpipe.run("batch", "--lake", name, code=1)
    assert "\ufffd]0;pwned" in done.stderr and not set("\x1b\x9b") & set(done.stderr), done.stderr


@pytest.mark.parametrize("command", [["doctor"], ["emulate", "--posts", "1"]])
def test_key_of_the_gateway_follows_no_redirect(pinpipe, command):
    pinpipe.run("seed", "--posts", 1)
    with listener(lambda path: (200, {}, b"{}")) as (thief, stolen):
        away = {"location": f"{thief}/steal"}
        with listener(lambda path: (307, away, b"")) as (gateway, received):
            env = {"PINPIPE__GATEWAY__URL": gateway, "PINPIPE_GATEWAY_API_KEY": "hunter2"}
            done = pinpipe.run(*command, code=1, env=env)
    assert received and received[0][1]["x-api-key"] == "hunter2"
    assert not stolen and f"redirects to {thief}/steal" in done.stdout + done.stderr, done.stderr


def test_key_of_the_gateway_is_sent_encrypted_or_to_this_machine(pinpipe):
    pinpipe.run("seed", "--posts", 1)
    url = "http://gateway.invalid/stage"
    env = {"PINPIPE__GATEWAY__URL": url, "PINPIPE_GATEWAY_API_KEY": "hunter2"}
    done = pinpipe.run("emulate", "--posts", 1, code=2, env=env)
    assert f"cannot send the API key to `{url}`" in done.stderr and "https://" in done.stderr
    # Without a key there is nothing to protect.
    done = pinpipe.run("emulate", "--posts", 1, code=1, env={"PINPIPE__GATEWAY__URL": url})
    assert "cannot reach the gateway" in done.stderr


def test_kafka_password_is_sent_encrypted_or_to_this_machine(pinpipe):
    env = {
        "PINPIPE__KAFKA__AUTH": "plain",
        "PINPIPE__KAFKA__USERNAME": "me",
        "PINPIPE_KAFKA_PASSWORD": "hunter2",
        "PINPIPE__KAFKA__TIMEOUT_MS": 1000,
    }
    servers = "127.0.0.1:1,broker.invalid:9092"
    for more, code, expected in [
        ({}, 2, "kafka.tls"),
        ({"PINPIPE__KAFKA__TLS": "true"}, 1, "cannot"),
        ({"PINPIPE__KAFKA__AUTH": "scram-sha-512"}, 1, "cannot"),
        ({"PINPIPE__KAFKA__BOOTSTRAP_SERVERS": "localhost:1"}, 1, "cannot"),
    ]:
        settings = {"PINPIPE__KAFKA__BOOTSTRAP_SERVERS": servers, **env, **more}
        done = pinpipe.run("topics", "list", code=code, env=settings)
        assert expected in done.stderr and "hunter2" not in done.stderr, done.stderr


def test_token_of_a_databricks_workspace_reaches_no_other(pinpipe):
    with listener(lambda path: (200, {}, b"{}")) as (thief, stolen):
        (pinpipe.folder / "pinpipe.toml").write_text(
            f'[lake]\nurl = "s3://user-local-bucket"\n[databricks]\nhost = "{thief}"\n'
        )
        env = {
            "DATABRICKS_HOST": "https://real.cloud.databricks.com",
            "DATABRICKS_TOKEN": "hunter2",
            "HOME": pinpipe.folder,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        }
        done = pinpipe.run("batch", "--engine", "spark", "--on", "databricks", code=2, env=env)
    assert not stolen and "hunter2" not in done.stderr, stolen
    assert f"cannot send the Databricks token to {thief}" in done.stderr, done.stderr


def test_dot_env_cannot_run_a_program(pinpipe):
    """`credential_process` of a configuration of AWS is a command."""
    evil = pinpipe.folder / "evil.sh"
    evil.write_text('#!/bin/sh\necho "$PINPIPE__ID" > PWNED\nexit 1\n')
    evil.chmod(0o755)
    (pinpipe.folder / "evil.cfg").write_text(f"[default]\ncredential_process = {evil}\n")
    (pinpipe.folder / ".env").write_text("AWS_CONFIG_FILE=./evil.cfg\nPINPIPE__ID=from-dot-env\n")
    env = {
        "PINPIPE__TARGET": "aws",
        "PINPIPE__AWS__ENDPOINT_URL": "http://127.0.0.1:1",
        "PINPIPE__AWS__ATTEMPTS": 1,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": pinpipe.folder,
    }
    done = pinpipe.run("status", code=1, env=env)
    assert not (pinpipe.folder / "PWNED").exists()
    assert "`.env`: `AWS_CONFIG_FILE` is ignored" in done.stderr, done.stderr
    # A variable of the environment is the user's own: it shows that the command would have run.
    pinpipe.run("status", code=1, env={**env, "AWS_CONFIG_FILE": "./evil.cfg"})
    assert (pinpipe.folder / "PWNED").read_text() == "from-dot-env\n"


def test_spark_submit_gets_no_secret_of_pinpipe(pinpipe):
    submit = pinpipe.folder / "submit.sh"
    submit.write_text("#!/bin/sh\nenv > seen\nexit 1\n")
    submit.chmod(0o755)
    pinpipe.run("seed", "--posts", 3)
    write_lake(pinpipe.data / "source.db", pinpipe.folder / "lake", 3)
    env = {
        "PINPIPE__SPARK__SUBMIT": submit,
        "PINPIPE__DATABASE__URL": "mysql://me:hunter2@127.0.0.1:1/d",
        "PINPIPE_DATABASE_PASSWORD": "hunter2",
        "PINPIPE_KAFKA_PASSWORD": "hunter2",
        "PINPIPE_GATEWAY_API_KEY": "hunter2",
        "DATABRICKS_TOKEN": "hunter2",
        "AWS_SECRET_ACCESS_KEY": "of-the-lake",
    }
    pinpipe.run("batch", "--engine", "spark", "--lake", "lake", code=1, env=env)
    seen = (pinpipe.folder / "seen").read_text()
    assert "hunter2" not in seen and "AWS_SECRET_ACCESS_KEY=of-the-lake" in seen, seen


@pytest.mark.parametrize("log_filter", ["trace", "sqlx_postgres::options=trace", None])
def test_no_filter_of_the_log_shows_an_option_of_the_database_url(pinpipe, log_filter):
    """The library warns about an option that it does not know, with the value."""
    env = {"PINPIPE__DATABASE__URL": "postgres://me@127.0.0.1:1/x?passphrase=hunter2"}
    log = {"PINPIPE_LOG": log_filter} if log_filter else {}
    done = pinpipe.run("seed", "-vvv", code=1, env=env | log)
    assert "hunter2" not in done.stdout + done.stderr, done.stderr


def serve_postgres_without_tls(server, received):
    """Speaks as much of PostgreSQL's protocol as asks for a password in clear text."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            connection.recv(8)  # SSLRequest
            connection.sendall(b"N")
            if connection.recv(4096):  # StartupMessage
                connection.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
                received.append(connection.recv(4096))


def test_password_of_a_database_is_sent_encrypted_or_to_this_machine(pinpipe):
    """0.0.0.0 is no loopback address, but reaches this machine."""
    received = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(
            target=serve_postgres_without_tls, args=(server, received), daemon=True
        ).start()
        url = f"postgres://me@0.0.0.0:{port}/d"

        def seed(url):
            env = {"PINPIPE__DATABASE__URL": url, "PINPIPE_DATABASE_PASSWORD": "hunter2"}
            return pinpipe.run("seed", code=1, env=env).stderr

        stderr = seed(url)
        assert received == [] and "TLS" in stderr and "sslrootcert" in stderr, stderr
        # The URL may say otherwise; loopback needs no TLS.
        for weaker in (f"{url}?sslmode=prefer", url.replace("0.0.0.0", "127.0.0.1")):
            seed(weaker)
            assert b"hunter2" in received.pop(), weaker


def test_data_is_read_by_its_owner_only(pinpipe):
    before = os.umask(0o022)
    try:
        pinpipe.run("demo", "--posts", 50)
        pinpipe.run("batch", "--out", "answers", "--format", "csv", "--format", "html")
    finally:
        os.umask(before)
    written = [pinpipe.data, *pinpipe.data.rglob("*")]
    written += [pinpipe.folder / "answers", *(pinpipe.folder / "answers").rglob("*")]
    assert len(written) > 50
    modes = {str(path): oct(path.stat().st_mode & 0o777) for path in written}
    assert set(modes.values()) == {"0o600", "0o700"}, modes


def test_drafts_follow_no_link(local):
    """A shared folder can contain links that another user put there."""
    data, victim = local.pinpipe.data, local.pinpipe.folder / "victim"
    victim.write_text("mine")
    for name in ("api.json.new", "connectors.json.new", ".doctor.new", ".doctor"):
        (data / name).symlink_to(victim)
    local.pinpipe.run("provision")
    local.pinpipe.run("seed", "--posts", 1)
    local.pinpipe.run("doctor")
    assert victim.read_text() == "mine"
    assert (data / "api.json").is_file() and not (data / "api.json").is_symlink()


@pytest.mark.parametrize(("setting", "prefix"), [("keep", ""), ("escape", "'")])
def test_formulas_in_csv_files_are_kept_or_escaped(pinpipe, setting, prefix):
    formula = '=HYPERLINK("http://evil.example","x")'
    lake = lake_of_one_category(pinpipe, formula)
    env = {} if setting == "keep" else {"PINPIPE__BATCH__CSV_FORMULAS": setting}
    arguments = ["batch", "--lake", lake, "--out", "answers", "--format", "csv,json"]
    pinpipe.run(*arguments, env=env)
    answers = pinpipe.folder / "answers"
    cells = [
        cell
        for path in answers.glob("*.csv")
        for row in csv.reader(path.read_text().splitlines())
        for cell in row
    ]
    found = {cell for cell in cells if "HYPERLINK" in cell}
    assert found == {prefix + formula}
    # Other formats are for programs.
    texts = "".join(path.read_text() for path in answers.glob("*.jsonl"))
    assert json.dumps(formula) in texts and "'=" not in texts

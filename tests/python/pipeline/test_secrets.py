"""Secrets: never shown, never sent to another host, never handed to a process that needs none.
And texts of others, whose control characters never reach the terminal.
"""

import json

import pytest
import requests

from support.lakes import write_lake

PROPERTIES = {
    "connector.class": "io.confluent.connect.s3.S3SinkConnector",
    "storage.class": "io.confluent.connect.s3.storage.S3Storage",
    "format.class": "io.confluent.connect.s3.format.json.JsonFormat",
    "topics": "t",
    "s3.bucket.name": "b",
    "flush.size": "1",
}


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


def test_escape_sequences_of_records_do_not_reach_the_terminal(pinpipe):
    pinpipe.run("seed", "--posts", 20)
    lake = pinpipe.folder / "lake"
    write_lake(pinpipe.data / "source.db", lake, 3)
    changed = 0
    for path in (lake / "topics" / "local.pin").rglob("*.json"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            record["category"] = SEQUENCE
            changed += 1
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert changed == 20
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

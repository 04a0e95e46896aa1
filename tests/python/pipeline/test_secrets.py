"""Secrets: never shown, never sent to another host, never handed to a process that needs none."""

import pytest


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

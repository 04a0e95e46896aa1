"""Real MariaDB and PostgreSQL servers, started here on loopback."""

import glob
import os
import pathlib
import pwd
import shutil
import subprocess

import pytest

from support.lakes import lake_lines, wait_for_lake
from support.pinpipe import Pinpipe
from support.ports import free_port
from support.wait import wait_until

pytestmark = pytest.mark.server

PASSWORD = "s3cret-Pa55"


def as_user(name):
    """Returns the user of a server: `name` if the tests run as root, which servers refuse."""
    return {"user": name} if os.getuid() == 0 else {}


def own(folder, name):
    if os.getuid() == 0:
        entry = pwd.getpwnam(name)
        os.chown(folder, entry.pw_uid, entry.pw_gid)


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory):
    folder = pathlib.Path("/tmp") / f"pinpipe-mariadb-{os.getpid()}"
    folder.mkdir(mode=0o755)
    own(folder, "mysql")
    port = free_port()
    log = open(folder / "log", "wb")  # noqa: SIM115 - the server writes to it
    common = ["--no-defaults", f"--datadir={folder}/data"]
    subprocess.run(
        [
            "mariadb-install-db",
            *common,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ],
        check=True,
        stdout=log,
        stderr=log,
        **as_user("mysql"),
    )
    server = subprocess.Popen(
        [
            "/usr/sbin/mariadbd",
            *common,
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--socket={folder}/s",
        ],
        stdout=log,
        stderr=log,
        **as_user("mysql"),
    )

    def sql(statement):
        return subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={folder}/s", "-uroot", "-e", statement],
            capture_output=True,
            text=True,
        )

    try:
        wait_until(lambda: sql("select 1").returncode == 0, "MariaDB to start", 60)
        done = sql(
            "create database pins; create user pin@'127.0.0.1' identified by "
            f"'{PASSWORD}'; create user pin@localhost identified by '{PASSWORD}'; "
            "grant all on pins.* to pin@'127.0.0.1'; grant all on pins.* to "
            "pin@localhost"
        )
        assert done.returncode == 0, done.stderr
        yield f"mysql://pin@127.0.0.1:{port}/pins"
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    folder = pathlib.Path("/tmp") / f"pinpipe-postgres-{os.getpid()}"
    folder.mkdir(mode=0o700)
    own(folder, "postgres")
    binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    port = free_port()
    secret = folder / "secret"
    secret.write_text(PASSWORD)
    own(secret, "postgres")
    run = dict(
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user("postgres")
    )
    subprocess.run(
        [
            f"{binaries}/initdb",
            "-D",
            folder / "data",
            "-U",
            "pin",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "-E",
            "UTF8",
            "--locale=C",
        ],
        check=True,
        **run,
    )
    server = subprocess.Popen(
        [
            f"{binaries}/postgres",
            "-D",
            folder / "data",
            "-p",
            str(port),
            "-h",
            "127.0.0.1",
            "-k",
            folder,
        ],
        **run,
    )
    try:
        wait_until(
            lambda: (
                subprocess.run(
                    [f"{binaries}/pg_isready", "-h", "127.0.0.1", "-p", str(port)],
                    capture_output=True,
                ).returncode
                == 0
            ),
            "PostgreSQL to start",
            60,
        )
        yield f"postgres://pin@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["mariadb", "postgres"])
def server(request):
    return request.getfixturevalue(request.param)


def test_server_is_seeded_and_its_rows_are_posted(local, server):
    pinpipe = local.pinpipe
    env = {"PINPIPE__DATABASE__URL": server, "PINPIPE_DATABASE_PASSWORD": PASSWORD}
    # The second seed replaces tables that contain rows.
    pinpipe.run("seed", "--posts", 7, "--replace", env=env)
    report = pinpipe.json("seed", "--posts", 600, "--replace", env=env)
    assert report["posts"] == 600 and report["database"] == server
    assert not pinpipe.json("seed", env=env)["filled"], "another seed keeps existing rows"
    pinpipe.run("seed", "--posts", 5, code=1, env=env)
    pinpipe.run("provision")
    assert (
        pinpipe.json("emulate", "--to", "kafka", "--posts", 600, "--batch", 20, env=env)["errors"]
        == 0
    )
    wait_for_lake(pinpipe, 1800)
    own = sorted(lake_lines(pinpipe), key=str)
    # SQLite yields equal records for the same rows, including emoji.
    other = Pinpipe(pinpipe.folder)
    other.run("seed", "--posts", 600)
    other.run("destroy", "--yes")
    other.run("provision")
    shutil.rmtree(pinpipe.data / "lake")
    other.run("connector", "restart")
    assert other.json("emulate", "--to", "kafka", "--posts", 600)["errors"] == 0
    wait_for_lake(pinpipe, 1800)
    assert own == sorted(lake_lines(pinpipe), key=str)
    assert any("✨" in str(r) for r in own)


def test_killed_seed_leaves_the_rows(pinpipe, server):
    env = {"PINPIPE__DATABASE__URL": server, "PINPIPE_DATABASE_PASSWORD": PASSWORD}
    pinpipe.run("seed", "--posts", 7, "--replace", env=env)
    running = pinpipe.start("seed", "--posts", 100_000, "--replace", "-v", env=env)
    for line in running.stderr:
        if "filling the tables" in line:
            break
    running.kill()
    running.communicate()
    # Filling usually takes many seconds. If it was complete before the kill, all rows are new.
    report = pinpipe.json("seed", env=env)
    assert not report["filled"] and report["posts"] in (7, 100_000), report
    assert pinpipe.json("seed", "--posts", 5, "--replace", env=env)["posts"] == 5


def test_wrong_password_is_reported_but_never_shown(pinpipe, server):
    wrong = "hunter2-wrong"
    for command in (["seed"], ["emulate", "--posts", "1"], ["doctor"]):
        done = pinpipe.run(
            *command,
            "-vv",
            code=1,
            env={"PINPIPE__DATABASE__URL": server, "PINPIPE_DATABASE_PASSWORD": wrong},
        )
        assert wrong not in done.stdout + done.stderr
        assert "PINPIPE_DATABASE_PASSWORD" in done.stdout + done.stderr
    inside = server.replace("pin@", f"pin:{wrong}@")
    done = pinpipe.run("seed", "-vv", code=1, env={"PINPIPE__DATABASE__URL": inside})
    assert wrong not in done.stdout + done.stderr


def test_missing_tables_on_a_server_hint_at_seed(pinpipe, postgres):
    env = {
        "PINPIPE__DATABASE__URL": postgres.replace("/postgres", "/template1"),
        "PINPIPE_DATABASE_PASSWORD": PASSWORD,
    }
    assert "pinpipe seed" in pinpipe.run("emulate", "--posts", "1", code=1, env=env).stderr
    gone = pinpipe.run(
        "seed",
        code=1,
        env={
            "PINPIPE__DATABASE__URL": postgres.replace("/postgres", "/nowhere"),
            "PINPIPE_DATABASE_PASSWORD": PASSWORD,
        },
    ).stderr
    assert "nowhere" in gone and "hint:" in gone

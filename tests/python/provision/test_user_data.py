"""The client machine's scripts, run on a temporary machine for each test."""

import hashlib
import re
import shutil
import subprocess

import pytest

from support import client_machine
from support.client_machine import CLIENT_PROPERTIES, CONFLUENT, KAFKA, PROXY_PROPERTIES
from support.templates import VALUES, render

SECRET = "S3cret-of.the~proxy_1"
JAR = "/opt/pinpipe/aws-msk-iam-auth-1.1.5-all.jar"
PASSWORDS = "/run/kafka-rest/password.properties"
DOWNLOADS = [
    "kafka_2.12-2.8.1.tgz",
    "aws-msk-iam-auth-1.1.5-all.jar",
    "confluent-community-7.2.0.tar.gz",
]


PROXY_JAAS = f"""\
KafkaRest {{
  org.eclipse.jetty.jaas.spi.PropertyFileLoginModule required
  debug="false"
  file="{PASSWORDS}";
}};
"""


@pytest.fixture
def machine(tmp_path):
    made = client_machine.make(tmp_path / "machine")
    made.answer(
        secret=f"{SECRET}\n",
        active="activating",
        journal="INFO Server started\n",
        status="000",
        body="",
    )
    return made


def provision(machine, code=0, **values):
    done = machine.run("bash", text=render("user_data.sh", **values))
    log = machine.path("/var/log/pinpipe-user-data.log")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", ""), (
        log.read_text() if log.exists() else done.stderr
    )
    return log.read_text()


def known_sums(machine):
    """Returns the configured checksums of the two files whose projects publish none; Apache
    publishes its own.
    """
    names = {"iam_auth_sha512": DOWNLOADS[1], "confluent_sha512": DOWNLOADS[2]}
    return {
        key: hashlib.sha512((machine.root / "downloads" / name).read_bytes()).hexdigest()
        for key, name in names.items()
    }


def start_service(machine, code=0):
    """Does what systemd does at each start: creates the folder in memory, reads the password."""
    machine.path("/run/kafka-rest").mkdir(exist_ok=True)
    done = machine.run("/opt/pinpipe/read-proxy-secret")
    assert done.returncode == code, done.stderr
    return done


def ask(machine, shell="sh"):
    done = machine.run(shell, text=render("proxy_answers.sh"))
    assert done.stdout.endswith("\n") and done.stdout.count("\n") == 1, done
    assert SECRET not in done.stdout + done.stderr
    return done.returncode, done.stdout.strip()


def test_files_written_by_the_user_data(machine):
    log = provision(machine)
    assert machine.text(f"{KAFKA}/bin/client.properties") == CLIENT_PROPERTIES
    assert machine.text("/etc/pinpipe/kafka-rest.properties") == PROXY_PROPERTIES
    assert machine.text("/etc/pinpipe/kafka-rest.jaas") == PROXY_JAAS
    assert (
        machine.text("/etc/profile.d/pinpipe.sh")
        == f"export CLASSPATH={JAR}\nexport PATH=$PATH:/opt/pinpipe/kafka/bin\n"
    )
    assert machine.text("/etc/fstab") == "/var/swapfile none swap sw 0 0\n"
    assert machine.text("/var/lib/pinpipe/ready") == "ready\n"
    assert (
        not machine.path("/var/lib/pinpipe/failed").exists()
        and not machine.path("/var/lib/pinpipe/download").exists()
    )
    assert (
        machine.path(f"{KAFKA}/bin/kafka-topics.sh").exists()
        and machine.path(f"{CONFLUENT}/bin/kafka-rest-start").exists()
        and machine.path(JAR).exists()
    )
    links = {
        "/opt/pinpipe/kafka": KAFKA,
        "/opt/pinpipe/confluent": CONFLUENT,
        "/home/ec2-user/kafka_2.12-2.8.1": KAFKA,
        "/home/ec2-user/confluent-7.2.0": CONFLUENT,
    }
    assert {name: str(machine.path(name).readlink()) for name in links} == links
    assert log.splitlines()[-1] == "pinpipe: done"


def test_proxy_runs_as_an_unprivileged_user(machine):
    provision(machine)
    unit = machine.text("/etc/systemd/system/kafka-rest.service").splitlines()
    for line in (
        "User=kafka-rest",
        "RuntimeDirectory=kafka-rest",
        "RuntimeDirectoryMode=0700",
        f"Environment=CLASSPATH={JAR}",
        "Environment=KAFKAREST_HEAP_OPTS=-Xmx256M",
        "Environment=KAFKAREST_OPTS=-Djava.security.auth.login.config=/etc/pinpipe/kafka-rest.jaas",
        "ExecStartPre=/opt/pinpipe/read-proxy-secret",
        f"ExecStart={CONFLUENT}/bin/kafka-rest-start /etc/pinpipe/kafka-rest.properties",
        "Restart=always",
        "WantedBy=multi-user.target",
    ):
        assert unit.count(line) == 1, line
    calls = machine.calls("systemctl", "useradd", "chown", "yum")
    assert calls == [
        "yum install -y java-1.8.0-openjdk-headless unzip tar gzip",
        (
            "useradd --system --no-create-home --home-dir /opt/pinpipe --shell "
            "/sbin/nologin kafka-rest"
        ),
        "chown kafka-rest: /var/log/kafka-rest",
        "systemctl daemon-reload",
        "systemctl enable kafka-rest",
        "systemctl restart --no-block kafka-rest",
    ]


def test_second_run_changes_nothing(machine):
    provision(machine)
    first = machine.snapshot()
    assert len(machine.calls("curl")) == 4
    provision(machine)
    assert machine.snapshot() == first
    # Nothing is downloaded, created or added twice; the service restarts with changed files.
    assert machine.calls("curl", "useradd", "dd", "mkswap") == []
    provision(machine, bootstrap_servers="b-9.abc:9098")
    assert "bootstrap.servers = b-9.abc:9098\n" in machine.text(
        "/etc/pinpipe/kafka-rest.properties"
    )
    assert "systemctl restart --no-block kafka-rest" in machine.calls()


def test_properties_without_comments_and_optional_zookeeper(machine):
    provision(machine, zookeeper="")
    written = machine.text("/etc/pinpipe/kafka-rest.properties")
    assert written == re.sub("zookeeper.*\n", "", PROXY_PROPERTIES)
    assert "#" not in written + machine.text(f"{KAFKA}/bin/client.properties")
    # The four lines of the proxy are those of the client, with a prefix.
    proxy, client = (
        dict(line.split(" = ", 1) for line in text.splitlines())
        for text in (written, CLIENT_PROPERTIES)
    )
    assert {
        name.removeprefix("client."): value
        for name, value in proxy.items()
        if name.startswith("client.")
    } == client


@pytest.mark.parametrize("damage", ["missing", "cut short", "another"])
@pytest.mark.parametrize("name", DOWNLOADS)
def test_failed_download_leaves_nothing_partial(machine, name, damage):
    whole = (machine.root / "downloads" / name).read_bytes()
    sums = known_sums(machine) if damage == "another" else {}
    if damage == "missing":
        machine.withdraw(name)
    elif damage == "cut short":
        machine.publish(name, whole[:-40])
    else:
        machine.publish(name, whole + b" ")
    log = provision(machine, code=1, **sums)
    url = next(value for value in VALUES.values() if value.endswith(f"/{name}"))
    assert log.splitlines()[-1] == f"pinpipe: failed: download of {url}"
    assert "attempt 5 of 5 failed" in log
    assert machine.text("/var/lib/pinpipe/failed") == f"download of {url}\n"
    assert (
        not machine.path("/var/lib/pinpipe/ready").exists()
        and not machine.path("/var/lib/pinpipe/download").exists()
    )
    assert not [
        path
        for path in machine.path("/opt/pinpipe").iterdir()
        if path.name in (name, "confluent-7.2.0") or path.name.endswith(".part")
    ]
    calls = machine.calls("systemctl", "sleep")
    assert calls == [f"sleep {seconds}" for seconds in (5, 10, 15, 20)]
    # Once the download is available, another run completes the rest.
    machine.publish(name, whole)
    provision(machine, **sums)
    assert (
        machine.text("/var/lib/pinpipe/ready") == "ready\n"
        and not machine.path("/var/lib/pinpipe/failed").exists()
    )


def test_both_layouts_of_apache_checksums_are_read(machine):
    kafka = (machine.root / "downloads" / DOWNLOADS[0]).read_bytes()
    machine.publish(
        f"{DOWNLOADS[0]}.sha512", f"{hashlib.sha512(kafka).hexdigest()}  {DOWNLOADS[0]}\n".encode()
    )
    provision(machine)
    assert machine.path(KAFKA).exists()


def test_password_is_read_at_each_start_and_stored_nowhere_else(machine):
    assert SECRET not in render("user_data.sh")
    log = provision(machine)
    start_service(machine)
    assert machine.text(PASSWORDS) == f"api-gateway: {SECRET},pinpipe\n"
    assert machine.path(PASSWORDS).stat().st_mode & 0o777 == 0o600
    assert machine.calls("aws") == [
        (
            "aws ssm get-parameter --region us-east-1 --name "
            "/pinpipe/abc/proxy-password --with-decryption --query Parameter.Value "
            "--output text"
        )
    ]
    assert machine.files_with(SECRET) == [PASSWORDS] and SECRET not in log
    machine.answer(secret="another")
    start_service(machine)
    assert machine.text(PASSWORDS) == "api-gateway: another,pinpipe\n"


@pytest.mark.parametrize(
    "secret",
    ["", "with,comma", "with space", "quo'te", "OBF:1x", "back\\slash", "pässword", "two\nlines"],
)
def test_password_unfit_for_the_password_file_is_rejected(machine, secret):
    provision(machine)
    start_service(machine)
    machine.answer(secret=secret)
    done = start_service(machine, code=1)
    assert done.stderr == (
        "pinpipe: the password in /pinpipe/abc/proxy-password must contain only letters, "
        "digits and . _ ~ -\n"
    )
    assert machine.text(PASSWORDS) == f"api-gateway: {SECRET},pinpipe\n"


def test_unreadable_parameter_stops_the_start(machine):
    provision(machine)
    (machine.root / "answers/secret").unlink()
    assert "ParameterNotFound" in start_service(machine, code=254).stderr
    assert not machine.path(PASSWORDS).exists()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_check_reports_the_progress(machine, shell):
    assert ask(machine, shell) == (1, "user data still running: nothing logged yet")
    machine.path("/var/log/pinpipe-user-data.log").write_text(
        "pinpipe: packages\npinpipe: download of x\n"
    )
    assert ask(machine, shell) == (1, "user data still running: pinpipe: download of x")
    machine.withdraw(DOWNLOADS[2])
    provision(machine, code=1)
    assert ask(machine, shell) == (1, f"user data failed: download of {VALUES['confluent-url']}")


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize(
    ("status", "body", "code", "line"),
    [
        ("200", '["abc.pin"]', 0, "the proxy responds"),
        ("401", "", 1, "the proxy rejects the password (401): restart the service kafka-rest"),
        (
            "500",
            '{"error_code":50002,\n"message":"Kafka error: Access denied"}',
            1,
            'the proxy responds with HTTP 500: "message":"Kafka error: Access denied"}',
        ),
        (
            "000",
            "",
            1,
            (
                "the proxy does not respond: service kafka-rest is activating, last line: "
                "INFO Server started"
            ),
        ),
    ],
)
def test_check_reports_the_response_of_the_proxy(machine, shell, status, body, code, line):
    provision(machine)
    assert ask(machine, shell) == (
        1,
        "no password yet: service kafka-rest is activating, last line: INFO Server started",
    )
    start_service(machine)
    machine.calls()
    machine.answer(status=status, body=body)
    assert ask(machine, shell) == (code, line)
    call = machine.calls("curl")
    assert (
        len(call) == 1
        and call[0].endswith(" http://localhost:8082/topics")
        and SECRET not in call[0]
    )
    assert machine.text("/answers/config") == f'user = "api-gateway:{SECRET}"\n'


def test_user_data_fits_the_size_limit():
    """EC2 accepts 16 KB before base64; names have the maximum length that AWS permits."""
    text = render(
        "user_data.sh",
        bootstrap_servers="b" * 400,
        zookeeper="z" * 400,
        proxy_secret_parameter="/" + "p" * 1010,
        role_arn="r" * 120,
        iam_auth_sha512="0" * 128,
        confluent_sha512="0" * 128,
    )
    assert len(text.encode()) < 16 * 1024
    assert text.startswith("#!/bin/bash\n") and "set -x" not in text


@pytest.mark.parametrize("name", ["user_data.sh", "proxy_answers.sh"])
def test_shellcheck_finds_nothing(name, tmp_path):
    if not shutil.which("shellcheck"):
        pytest.skip("SKIPPED: there is no shellcheck")
    (tmp_path / name).write_text(render(name))
    done = subprocess.run(
        ["shellcheck", "--severity", "style", tmp_path / name], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_shellcheck_finds_nothing_in_generated_scripts(machine):
    if not shutil.which("shellcheck"):
        pytest.skip("SKIPPED: there is no shellcheck")
    provision(machine)
    done = subprocess.run(
        ["shellcheck", "--severity", "style", machine.path("/opt/pinpipe/read-proxy-secret")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout

"""Batch on Databricks: a double that validates each request and runs real Spark; the answers match
the embedded engine.
"""

import json
import signal
import time

import boto3
import pytest

from doubles.aws import AwsDouble
from doubles.databricks import Databricks
from support.lakes import ANSWERS, write_lake
from support.pinpipe import Pinpipe
from support.wait import wait_until

pytestmark = pytest.mark.java

BUCKET = "user-local-bucket"


class Workspace:
    """A lake in a bucket, a workspace, and the program that uses both."""

    def __init__(self, folder, aws):
        self.aws = aws
        self.pinpipe = Pinpipe(folder)
        self.s3 = boto3.client(
            "s3",
            endpoint_url=aws.url,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        self.s3.create_bucket(Bucket=BUCKET)
        self.databricks = Databricks(folder / "databricks", s3=self.s3)

    def configure(self, settings=""):
        (self.pinpipe.folder / "pinpipe.toml").write_text(
            f'[lake]\nurl = "s3://{BUCKET}"\n[databricks]\npoll_ms = 100\n{settings}'
        )

    def upload(self, folder):
        for path in folder.rglob("*.json"):
            self.s3.upload_file(str(path), BUCKET, str(path.relative_to(folder)))

    def environment(self, **more):
        return {
            **self.aws.environment,
            "DATABRICKS_HOST": self.databricks.url,
            "DATABRICKS_TOKEN": self.databricks.token,
            "HOME": str(self.pinpipe.folder),
            **more,
        }

    def batch(self, *arguments, env=None, **options):
        return self.pinpipe.run(
            "batch",
            "--engine",
            "spark",
            "--on",
            "databricks",
            "--output",
            "json",
            *arguments,
            env=env or self.environment(),
            timeout=3600,
            **options,
        )

    def objects(self, prefix):
        return [
            o["Key"]
            for o in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        ]


@pytest.fixture
def workspace(tmp_path):
    with AwsDouble() as aws:
        workspace = Workspace(tmp_path, aws)
        with workspace.databricks:
            workspace.configure()
            workspace.pinpipe.run("seed", "--posts", 400)
            write_lake(workspace.pinpipe.data / "source.db", tmp_path / "lake", 3)
            workspace.upload(tmp_path / "lake")
            yield workspace
            assert workspace.databricks.violations == []


def test_databricks_matches_the_embedded_engine_and_leaves_nothing(workspace):
    embedded = workspace.pinpipe.json("batch", env=workspace.environment())
    # Long enough for the state to be read on a busy machine.
    workspace.databricks.clusters.seconds_to_start = 2
    done = workspace.batch()
    report = json.loads(done.stdout)
    assert report["answers"] == embedded["answers"]

    def counts(report):
        return [
            (i["kind"], i["records"], i["rejects"], i["duplicates"], i["rows"])
            for i in report["inputs"]
        ]

    assert counts(report) == counts(embedded)
    (submitted,) = workspace.databricks.calls("jobs/runs/submit")
    cluster = submitted.body["tasks"][0]["new_cluster"]
    assert (
        cluster["num_workers"],
        cluster["custom_tags"]["pinpipe:id"],
        submitted.body["timeout_seconds"],
    ) == (2, "local", 7200)
    for state in ("PENDING", "RUNNING", "TERMINATED"):
        assert f": {state}" in done.stderr, "each state is reported"
    assert workspace.objects("answers/") == [] and not [
        p for p in workspace.databricks.workspace.folder.rglob("*.py")
    ]
    assert workspace.databricks.token not in done.stdout + done.stderr
    assert not (workspace.pinpipe.data / "databricks/run.json").exists()


def test_existing_cluster_and_secret_scope_are_used(workspace):
    workspace.databricks.secrets.update(
        {("lake", "aws_access_key_id"): "AK1", ("lake", "aws_secret_access_key"): "SK1"}
    )
    workspace.databricks.clusters.requires_credentials = True
    workspace.configure('workers = 0\nsecret_scope = "lake"\nfolder = "/Shared/pinpipe"\n')
    workspace.batch()
    (submitted,) = workspace.databricks.calls("jobs/runs/submit")
    assert (
        submitted.body["tasks"][0]["new_cluster"]["spark_conf"]["spark.hadoop.fs.s3a.secret.key"]
        == "{{secrets/lake/aws_secret_access_key}}"
    )
    assert submitted.body["tasks"][0]["spark_python_task"]["python_file"].startswith(
        "/Workspace/Shared/pinpipe/local/run-"
    )
    workspace.databricks.clusters.requires_credentials = False
    workspace.databricks.clusters.existing["1121-164747-there"] = {}
    workspace.configure('cluster_id = "1121-164747-there"\n')
    workspace.batch()
    task = workspace.databricks.calls("jobs/runs/submit")[-1].body["tasks"][0]
    assert task["existing_cluster_id"] == "1121-164747-there" and "new_cluster" not in task


def test_retries_start_the_run_only_once(workspace):
    for endpoint, fault, after in [
        ("workspace/import", 429, False),
        ("jobs/runs/submit", "drop", True),
        ("jobs/runs/get", 503, False),
        ("workspace/mkdirs", 500, False),
    ]:
        workspace.databricks.fail(
            endpoint,
            fault,
            first=1,
            times=2,
            after=after,
            headers={"Retry-After": "0"} if fault == 429 else {},
        )
    workspace.batch()
    assert len(workspace.databricks.runs.by_id) == 1


def test_failures_are_reported_with_reason_and_hint(workspace):
    def error(done):
        # The last line is the error as JSON; notes stand before it.
        failure = json.loads(done.stderr.splitlines()[-1])
        return f"error: {failure['error']}\nhint: {failure['hint']}\n"

    workspace.databricks.clusters.failure = (
        "AWS_INSUFFICIENT_INSTANCE_CAPACITY_FAILURE",
        "no m5d.large left in us-east-1a",
    )
    stderr = error(workspace.batch(code=1))
    assert "no m5d.large left" in stderr and "hint:" in stderr and "http" in stderr, stderr
    workspace.databricks.clusters.failure = None
    (workspace.pinpipe.folder / "mine").mkdir()
    (workspace.pinpipe.folder / "mine/wrong.sql").write_text("SELECT nothing_like_it FROM post")
    stderr = error(
        workspace.batch(code=1, env=workspace.environment(PINPIPE__BATCH__QUESTIONS="mine"))
    )
    assert "ended with FAILED" in stderr and "nothing_like_it" in stderr and "hint:" in stderr, (
        stderr
    )
    stderr = error(
        workspace.batch(code=1, env=workspace.environment(DATABRICKS_TOKEN="dapi-wrong-0123456789"))
    )
    assert "403" in stderr and "token" in stderr and "dapi-wrong" not in stderr, stderr
    stderr = error(
        workspace.batch(
            code=2, env={**workspace.aws.environment, "HOME": str(workspace.pinpipe.folder)}
        )
    )
    assert "DATABRICKS_HOST" in stderr, stderr
    stderr = error(workspace.batch("--lake", "lake", code=2))
    assert "local folder" in stderr and "hint:" in stderr, stderr
    assert workspace.objects("answers/") == [], "a failed run leaves no objects"


def test_profile_of_the_databricks_cli_is_used(workspace):
    (workspace.pinpipe.folder / ".databrickscfg").write_text(
        "[other]\nhost = https://nowhere.example\ntoken = x\n[work]\nhost = "
        f"{workspace.databricks.url}/\ntoken = {workspace.databricks.token}\n"
    )
    environment = {
        **workspace.aws.environment,
        "HOME": str(workspace.pinpipe.folder),
        "DATABRICKS_CONFIG_PROFILE": "work",
    }
    workspace.databricks.clusters.failure = ("SPARK_STARTUP_FAILURE", "it got as far as this")
    assert "it got as far as this" in workspace.batch(env=environment, code=1).stderr
    assert (
        "profile `play` does not exist"
        in workspace.batch(code=2, env={**environment, "DATABRICKS_CONFIG_PROFILE": "play"}).stderr
    )


def start_submitted_run(workspace):
    process = workspace.pinpipe.start(
        "batch",
        "--engine",
        "spark",
        "--on",
        "databricks",
        "--output",
        "json",
        env=workspace.environment(),
    )
    wait_until(
        lambda: workspace.databricks.calls("jobs/runs/submit"), "the run to be submitted", 60
    )
    return process


def test_ctrl_c_cancels_the_run_and_a_killed_command_is_resumed(workspace):
    workspace.databricks.clusters.seconds_to_start = 3
    process = start_submitted_run(workspace)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1 and "was cancelled" in stderr, stderr
    assert len(workspace.databricks.calls("jobs/runs/cancel")) == 1
    (run,) = workspace.databricks.runs.by_id
    workspace.databricks.requests.clear()
    process = start_submitted_run(workspace)
    process.kill()
    process.wait()
    time.sleep(0.2)
    done = workspace.batch()
    assert "resuming run" in done.stderr and len(workspace.databricks.runs.by_id) == 2, done.stderr
    assert len(json.loads(done.stdout)["answers"]) == ANSWERS

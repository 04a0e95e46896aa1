"""Scheduled batch: usage errors and rare responses of Airflow."""

import re

import pytest

from support.scheduled import (
    AIRFLOW,
    CALM,
    DAG,
    RESOURCES,
    configured,
    scheduled,
)


def refused(pinpipe, *arguments, code=2, env=None):
    stderr = pinpipe.run("batch", *arguments, code=code, env=env).stderr
    assert stderr.count("error: ") == 1 and "hint: " in stderr, stderr
    return stderr


def test_schedule_requires_aws_airflow_and_databricks(tmp_path):
    no_credentials = {"HOME": str(tmp_path)}
    for command in (
        ["schedule"],
        ["schedule", "--print"],
        ["schedule", "--trigger"],
        ["unschedule"],
    ):
        assert "a schedule requires Managed Airflow" in refused(
            configured(tmp_path, target="local"), *command, env=no_credentials
        )
        assert "`airflow.enabled` is false" in refused(
            configured(tmp_path, airflow="enabled = false"), *command, env=no_credentials
        )
        assert "`schedule.enabled` is false" in refused(
            configured(tmp_path, settings="[schedule]\nenabled = false"),
            *command,
            env=no_credentials,
        )
    pinpipe = configured(tmp_path)
    assert "no Databricks workspace is configured" in refused(
        pinpipe, "schedule", "--print", env=no_credentials
    )
    stderr = refused(
        pinpipe,
        "schedule",
        "--print",
        env={**no_credentials, "DATABRICKS_HOST": "https://x.cloud.databricks.com"},
    )
    assert "no Databricks token is configured for" in stderr and "DATABRICKS_TOKEN" in stderr
    assert (
        "cannot be used with"
        in pinpipe.run("batch", "schedule", "--print", "--trigger", code=2).stderr
    )
    for key, wrong in (
        ("cron", '"daily"'),
        ("cron", '"0 6 * *"'),
        ("start_date", '"1.1.2024"'),
        ("start_date", '"2024-02-30"'),
        ("retries", "101"),
    ):
        assert f"`schedule.{key}`" in refused(
            configured(tmp_path, settings=f"[schedule]\n{key} = {wrong}"), "schedule", "--print"
        )


def test_missing_environment_changes_nothing(tmp_path):
    with scheduled(tmp_path, **CALM) as cloud:
        for command in (["schedule"], ["schedule", "--trigger"], ["unschedule"]):
            assert "Airflow environment `me-airflow` does not exist" in cloud.failing(
                "batch", *command
            )
        assert cloud.databricks.requests == [] and not any(cloud.aws.snapshot().values())


class Stub:
    """The part of Airflow's REST API that a schedule calls; the test sets the DAG."""

    def __init__(self, cloud, dag, errors=()):
        self.cloud, self.dag, self.errors, self.asked, self.connection = (
            cloud,
            dag,
            list(errors),
            0,
            None,
        )

    def __call__(self, name, method, path, query, body):
        if path == f"/dags/{DAG}" and method == "GET":
            self.asked += 1
            # The description tells which version of the file Airflow has read; the double answers
            # no other call meanwhile.
            text = (
                self.cloud.aws.bridge.store("s3")
                .buckets[AIRFLOW]
                .keys[f"dags/{DAG}.py"]
                .value.decode()
            )
            description = re.search(r'description="(.*)"', text)[1]
            return 200, {
                "dag_id": DAG,
                "description": description,
                "is_paused": False,
                "is_active": True,
                "is_stale": False,
                "has_import_errors": False,
                **self.dag(self.asked),
            }
        if path.startswith("/connections"):
            self.connection = (
                self.connection
                if method == "GET"
                else {name: value for name, value in body.items() if name != "password"}
            )
            return (
                (200, self.connection)
                if self.connection
                else (404, {"detail": "The Connection was not found"})
            )
        return 200, {"dags": [], "dag_runs": [], "import_errors": self.errors, "total_entries": 0}


@pytest.fixture
def stubbed(tmp_path):
    with scheduled(tmp_path, **CALM) as cloud:
        cloud.run("provision", "--yes", "--skip", ",".join(RESOURCES))
        yield cloud


def test_inactive_dag_is_waited_for(stubbed):
    for stale in ({"is_active": False}, {"is_stale": True}, {"description": "as it was before"}):
        stubbed.aws.airflow = Stub(stubbed, lambda asked, stale=stale: stale if asked < 4 else {})
        stubbed.run("batch", "schedule")
        assert stubbed.aws.airflow.asked >= 4, stale


def test_known_dag_with_an_import_error_is_an_error(stubbed):
    errors = [
        {
            "filename": f"/usr/local/airflow/dags/{name}",
            "stack_trace": f"Traceback\n{why}\n",
            "timestamp": "2999-01-01T00:00:00+00:00",
        }
        for name, why in (("other.py", "SyntaxError: theirs"), ("me_dag.py", "ImportError: ours"))
    ]
    stubbed.aws.airflow = Stub(stubbed, lambda asked: {"has_import_errors": True}, errors)
    for arguments in ([], ["--trigger"]):
        assert "Airflow cannot load `me_dag.py`: ImportError: ours" in stubbed.failing(
            "batch", "schedule", *arguments
        )


def test_foreign_connection_is_warned_about(stubbed):
    theirs = {
        "connection_id": "databricks_default",
        "conn_type": "databricks",
        "host": "theirs.example",
        "description": "theirs",
    }
    stubbed.aws.airflow = Stub(stubbed, lambda asked: {})
    stubbed.aws.airflow.connection = theirs
    stderr = stubbed.run("batch", "schedule").stderr
    assert re.search(r"warning: .*databricks_default.*theirs\.example", stderr), stderr
    assert stubbed.aws.airflow.connection == theirs

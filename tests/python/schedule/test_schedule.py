"""Scheduled batch: the DAG in real Airflow, runs on real Spark through Databricks, and `batch
schedule` and `unschedule`.
"""

import json
import re
import signal
import subprocess

import pytest

from doubles.airflow import VERSIONS, AirflowHome, forward_to
from doubles.databricks import Databricks
from support.golden import floats, golden_floats
from support.lakes import ANSWERS, wait_for_lake
from support.scheduled import (
    AIRFLOW,
    CALM,
    DAG,
    JOB,
    LAKE,
    RESOURCES,
    Sync,
    answers_of,
    configured,
    connection,
    counts_of,
    login,
    scheduled,
)
from support.wait import wait_until

pytestmark = pytest.mark.java

# Prints how Airflow reads each DAG.
PARSE = """
import json, sys
from airflow.models.dagbag import DagBag
bag = DagBag(sys.argv[1], include_examples=False)
found = {}
for name, dag in bag.dags.items():
    (task,) = dag.tasks
    found[name] = {
        "schedule": dag.timetable.summary, "start": dag.start_date.isoformat(), "catchup": dag.catchup, "at_once": dag.max_active_runs,
        "retries": task.retries, "delay": task.retry_delay.total_seconds(), "operator": type(task).__name__, "connection": task.databricks_conn_id,
        "poll": task.polling_period_seconds}
print("PARSED " + json.dumps({"errors": bag.import_errors, "dags": found}))
"""  # noqa: E501
ODD = '/Shared/{{ ds }} {% now %} "@CRON@" ü'
# By id: a configuration, and the DAG expected of it.
DAGS = {
    "me": (
        "",
        {
            "schedule": "0 0 * * *",
            "start": "2024-01-01T00:00:00+00:00",
            "catchup": False,
            "at_once": 1,
            "retries": 1,
            "delay": 120,
            "poll": 5,
        },
    ),
    "rich": (
        f"""[schedule]
cron = "0 6 * * 1-5"
start_date = "2025-09-08"
catchup = true
retries = 0
retry_delay_seconds = 30
[databricks]
folder = '{ODD}'
workers = 0
spark_version = "17.3.x-scala2.13"
node_type = "r6id.xlarge"
data_security_mode = ""
secret_scope = "lake"
instance_profile_arn = "arn:aws:iam::123456789012:instance-profile/lake"
timeout_minutes = 30
poll_interval_ms = 1000
""",
        {
            "schedule": "0 6 * * 1-5",
            "start": "2025-09-08T00:00:00+00:00",
            "catchup": True,
            "at_once": 1,
            "retries": 0,
            "delay": 30,
            "poll": 1,
        },
    ),
    "there": (
        """[schedule]
cron = "@hourly"
retries = 5
[databricks]
cluster_id = "1121-164747-there"
""",
        {
            "schedule": "0 * * * *",
            "start": "2024-01-01T00:00:00+00:00",
            "catchup": False,
            "at_once": 1,
            "retries": 5,
            "delay": 120,
            "poll": 5,
        },
    ),
}


# The DAG.


@pytest.mark.parametrize("version", VERSIONS)
def test_dag_matches_the_configuration_and_escapes_templates(tmp_path, version):
    with Databricks(tmp_path / "databricks") as databricks:
        databricks.clusters.failure = ("AWS_INSUFFICIENT_INSTANCE_CAPACITY_FAILURE", "none left")
        home = AirflowHome(
            tmp_path / "airflow", version, AIRFLOW_CONN_DATABRICKS_DEFAULT=connection(databricks)
        )
        for id, (settings, _) in DAGS.items():
            pinpipe = configured(tmp_path / id, id, settings)
            (home.dags / f"{id}_dag.py").write_text(
                pinpipe.run("batch", "schedule", "--print", env=login(databricks, tmp_path)).stdout
            )
        # Printing calls nothing but the identity of the caller.
        assert {request.endpoint for request in databricks.requests} == {"preview/scim/v2/Me"}
        assert home.parsed()["warnings"] == []
        done = subprocess.run(
            [home.venv / "bin/python", "-c", PARSE, home.dags],
            cwd=home.folder,
            env=home.environment,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        parsed = json.loads(done.stdout.split("PARSED ")[-1])
        assert parsed["errors"] == {}
        same = {"operator": "DatabricksSubmitRunOperator", "connection": "databricks_default"}
        assert parsed["dags"] == {
            f"{id}_dag": {**wanted, **same} for id, (_, wanted) in DAGS.items()
        }
        # It fails, since the cluster does not start, but Databricks got the request.
        home.test("rich_dag", code=None)
        (submitted,) = databricks.calls("jobs/runs/submit")
        task = submitted.body["tasks"][0]
        cluster = task["new_cluster"]
        assert (
            cluster["spark_conf"]["spark.hadoop.fs.s3a.access.key"]
            == "{{secrets/lake/aws_access_key_id}}"
        )
        assert (
            cluster["spark_conf"]["spark.hadoop.fs.s3a.secret.key"]
            == "{{secrets/lake/aws_secret_access_key}}"
        )
        assert cluster["aws_attributes"] == {
            "instance_profile_arn": "arn:aws:iam::123456789012:instance-profile/lake"
        }
        assert (cluster["spark_version"], cluster["node_type_id"], cluster["num_workers"]) == (
            "17.3.x-scala2.13",
            "r6id.xlarge",
            "0",
        )
        assert (
            "data_security_mode" not in cluster
            and submitted.body["timeout_seconds"] == "1800"
            and len(submitted.body["idempotency_token"]) == 36
        )
        script = task["spark_python_task"]
        assert (
            script["python_file"] == f"/Workspace{ODD}/rich/scheduled/job.py"
            and script["parameters"][0] == f"/Workspace{ODD}/rich/scheduled/parameters.json"
        )
        assert re.fullmatch(r"[\w.~-]+", script["parameters"][1]), script["parameters"]
        there = (home.dags / "there_dag.py").read_text()
        assert '"existing_cluster_id": "1121-164747-there"' in there and "new_cluster" not in there
        assert databricks.violations == []


# Runs, without a scheduler.


def run_by_airflow(cloud, folder, version):
    """Runs the DAG once, returns the folder of its answers."""
    home = AirflowHome(
        folder / "airflow", version, AIRFLOW_CONN_DATABRICKS_DEFAULT=connection(cloud.databricks)
    )
    (home.dags / "me_dag.py").write_text(cloud.run("batch", "schedule", "--print").stdout)
    home.test(DAG, timeout=3600)
    (run,) = {key.split("/")[2] for key in cloud.keys(LAKE, "answers/me/")}
    return f"answers/me/{run}"


def same_as_embedded(cloud, folder):
    """Asserts that the answers of Spark match the embedded engine; returns its report."""
    report = cloud.json("batch", timeout=3600)
    assert len(report["answers"]) == ANSWERS
    for name, rows in answers_of(report).items():
        assert [list(row.values()) for row in cloud.parquet(f"{folder}/{name}")] == rows, name
    counts = {row.pop("kind"): tuple(row.values()) for row in cloud.parquet(f"{folder}/counts")}
    assert counts == counts_of(report)
    return report


@pytest.mark.nightly
def test_airflow_runs_the_job_over_100_000_posts(tmp_path):
    with scheduled(tmp_path, **CALM) as cloud:
        cloud.apply("--only", "bucket,databricks-job")
        cloud.seed(100_000, 9)
        report = same_as_embedded(cloud, run_by_airflow(cloud, tmp_path, "2.10.3"))
        assert {counts[0] for counts in counts_of(report).values()} == {100_000}


def test_airflow_runs_the_job_over_the_published_records(tmp_path, real_data, golden, local):
    local.pinpipe.run("seed", "--from", real_data)
    local.pinpipe.run("provision")
    # Twice, as after a restart.
    for _ in range(2):
        local.pinpipe.run("emulate", "--to", "kafka", "--rows", ",".join(map(str, golden["posts"])))
    wait_for_lake(local.pinpipe, 224 * 2 * 3)
    with scheduled(tmp_path / "aws", batch={"median": "lower"}, **CALM) as cloud:
        cloud.apply("--only", "bucket,databricks-job")
        cloud.fill(local.pinpipe.data / "lake" / "user-local-bucket")
        folder = run_by_airflow(cloud, tmp_path, "3.0.6")
        report = same_as_embedded(cloud, folder)
        assert set(counts_of(report).values()) == {(448, 0, 224, 224)}
        by_spark = cloud.parquet(f"{folder}/median_followers_by_age_group_and_join_year")
        assert floats(
            [{**row, "join_year": str(row["join_year"])} for row in by_spark],
            ["age_group", "join_year"],
        ) == golden_floats(golden, 8)


# Everything, with a scheduler.


def connections_sent(cloud):
    """Returns the requests that changed the connection of Airflow."""
    sent = [call.parameters for call in cloud.aws.calls_of("InvokeRestApi")]
    return [
        (each["Method"], each.get("Body"))
        for each in sent
        if each["Path"].startswith("/connections") and each["Method"] != "GET"
    ]


def waits_and_is_stopped(cloud, sync):
    """Asserts that the command waits while the DAG is in the bucket but not yet in Airflow."""
    sync.is_on = False
    process = cloud.start("batch", "schedule")
    wait_until(
        lambda: cloud.aws.count("InvokeRestApi", Path=f"/dags/{DAG}") >= 2, "the command to wait"
    )
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 1 and stdout == "" and "3 of 3 resources changed" in stderr
    assert "error: interrupted while waiting for Airflow\nhint: " in stderr


def cannot_be_loaded(cloud, sync, api):
    """Asserts that a DAG with an import error is reported."""
    sync.change = lambda text: b"import airflow.providers.of_nobody\n" + text
    sync.is_on = True
    stderr = cloud.failing("batch", "schedule")
    assert (
        "Airflow cannot load `me_dag.py`: ModuleNotFoundError: No module named "
        "'airflow.providers.of_nobody'"
    ) in stderr
    sync.change = lambda text: text
    # The import error disappears when Airflow reads the file again.
    wait_until(
        lambda: api.request("GET", "/importErrors")[1]["total_entries"] == 0,
        "Airflow to read the DAG again",
    )


def is_forgotten(status, dag):
    """Airflow may read a file once more after the DAG was deleted; then it marks the DAG as
    inactive.
    """
    return status == 404 or dag.get("is_active") is False or dag.get("is_stale") is True


@pytest.mark.parametrize("version", VERSIONS)
def test_schedule_trigger_and_unschedule(tmp_path, version):
    with scheduled(tmp_path, **CALM) as cloud:
        databricks, aws = cloud.databricks, cloud.aws
        cloud.change(airflow={"version": version})
        home = AirflowHome(tmp_path / "airflow", version)
        with home.api() as api, home.scheduler(), Sync(cloud, home) as sync:
            aws.airflow = forward_to(api)
            cloud.run("provision", "--yes", "--skip", ",".join(RESOURCES))
            assert set(cloud.plan()) == RESOURCES
            waits_and_is_stopped(cloud, sync)
            cannot_be_loaded(cloud, sync, api)

            # It is active, and has no runs yet.
            shown = cloud.json("batch", "schedule")
            assert shown == {"dag": DAG, "schedule": "0 0 29 2 *", "is_paused": False, "runs": []}
            assert api.request("GET", f"/dags/{DAG}")[1]["is_paused"] is False
            assert cloud.plan() == {}

            # A second call changes nothing but the token of the connection.
            cloud.seed(300, 3)
            databricks.token = "dapi-renewed-0123456789"
            expected = cloud.json("batch")
            done = cloud.run("batch", "schedule", "--trigger", "--output", "json", timeout=3600)
            assert (
                "0 of 3 resources changed" in done.stderr
                and "started run `pinpipe__" in done.stderr
            )
            method, body = connections_sent(cloud)[-1]
            assert method == "PATCH" and body["password"] == databricks.token
            report = json.loads(done.stdout)
            assert answers_of(report) == answers_of(expected) and counts_of(report) == counts_of(
                expected
            )
            assert (
                [i["objects"] for i in report["inputs"]]
                == [i["objects"] for i in expected["inputs"]]
                != [0, 0, 0]
            )
            (run,) = cloud.json("batch", "schedule")["runs"]
            assert (run["state"], run["run_id"][:9]) == ("success", "pinpipe__") and run[
                "ended"
            ] > run["started"]
            assert run["run_id"] in cloud.run("batch", "schedule").stdout
            assert len(
                databricks.runs.by_id
            ) == 1 and f"answers/me/{run['run_id']}/counts/_SUCCESS" in cloud.keys(LAKE, "answers/")
            assert cloud.plan() == {}

            # No cluster is available.
            databricks.clusters.failure = (
                "AWS_INSUFFICIENT_INSTANCE_CAPACITY_FAILURE",
                "no m5d.large left",
            )
            stderr = cloud.failing("batch", "schedule", "--trigger")
            assert re.search(
                r"error: run `pinpipe__\S+` of `me_dag` failed: .*no m5d.large left", stderr
            ), stderr
            assert [found["state"] for found in cloud.json("batch", "schedule")["runs"]] == [
                "failed",
                "success",
            ]

            # Deleted, except for answers and connection.
            assert "deleted `me_dag`; answers" in cloud.run("batch", "unschedule").stdout
            assert (
                cloud.keys(AIRFLOW, "dags/") == [] and not databricks.workspace.local(JOB).exists()
            )
            wait_until(
                lambda: is_forgotten(*api.request("GET", f"/dags/{DAG}")),
                "Airflow to forget the DAG",
            )
            assert cloud.json("batch", "unschedule") == {"dag": DAG, "removed": False}
            assert "`me_dag` was not scheduled" in cloud.run("batch", "unschedule").stdout
            assert set(cloud.plan()) == RESOURCES - {"airflow-connection"} and cloud.keys(
                LAKE, "answers/me/"
            )

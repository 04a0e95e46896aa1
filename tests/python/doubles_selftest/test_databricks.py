"""The double of Databricks itself, through the client of Databricks, and with real Spark."""

import base64
import time

import boto3
import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import DatabricksError, PermissionDenied, ResourceDoesNotExist
from databricks.sdk.service.compute import AwsAttributes, ClusterSpec
from databricks.sdk.service.jobs import Run, RunOutput, RunTask, SparkPythonTask, SubmitTask
from databricks.sdk.service.workspace import ImportFormat

from doubles.aws import AwsDouble
from doubles.databricks import Databricks
from doubles.databricks.description import check_members, members_of_class

pytestmark = pytest.mark.java

FOLDER = "/Users/me@example.com/pinpipe/me"
PROFILE = AwsAttributes(instance_profile_arn="arn:aws:iam::123456789012:instance-profile/me-lake")
JOB = """
import json, sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
given = json.load(open(sys.argv[1]))
words = spark.read.schema("word string").json(given["lake"] + "/topics/me.pin")
words.groupBy("word").count().coalesce(1).write.mode("overwrite").parquet(given["lake"] + "/answers/" + sys.argv[2])
print("counted with", spark.conf.get("spark.pinpipe.secret"))
"""  # noqa: E501


@pytest.fixture
def s3():
    with AwsDouble() as aws:
        client = boto3.client(
            "s3",
            "us-east-1",
            endpoint_url=aws.url,
            aws_access_key_id="AKID",
            aws_secret_access_key="secret",
        )
        client.create_bucket(Bucket="user-me-bucket")
        yield client


@pytest.fixture
def databricks(tmp_path, s3):
    with Databricks(tmp_path / "databricks", s3=s3) as databricks:
        yield databricks


def client_of(databricks, token=None):
    return WorkspaceClient(
        config=Config(
            host=databricks.url,
            token=token or databricks.token,
            auth_type="pat",
            retry_timeout_seconds=20,
        )
    )


@pytest.fixture
def client(databricks):
    return client_of(databricks)


def upload(client, name, text):
    client.workspace.mkdirs(FOLDER)
    client.workspace.import_(
        f"{FOLDER}/{name}",
        content=base64.b64encode(text.encode()).decode(),
        format=ImportFormat.RAW,
        overwrite=True,
    )


def task(*parameters, **cluster):
    spec = ClusterSpec(
        spark_version="16.4.x-scala2.12", node_type_id="m5.large", num_workers=2, **cluster
    )
    return SubmitTask(
        task_key="batch",
        new_cluster=spec,
        spark_python_task=SparkPythonTask(
            python_file=f"/Workspace{FOLDER}/job.py", parameters=list(parameters)
        ),
    )


def ended(client, waiting, seen=None):
    """Waits for a run to end, whatever its result; the client's own wait pauses for seconds."""
    until = time.time() + 90
    while time.time() < until:
        run = client.jobs.get_run(waiting.run_id)
        if seen is not None:
            seen.append(run.state.life_cycle_state.value)
        if run.state.result_state:
            return run
        time.sleep(0.05)
    raise AssertionError(f"{run.state} after 90 s")


def test_job_reads_and_writes_the_lake_with_real_spark(databricks, client, s3):
    s3.put_object(
        Bucket="user-me-bucket",
        Key="topics/me.pin/partition=0/me.pin+0+0000000000.json",
        Body=b'{"word": "a"}\n{"word": "b"}\n{"word": "a"}\n',
    )
    upload(client, "job.py", JOB)
    upload(client, "parameters.json", '{"lake": "s3://user-me-bucket"}')
    assert {item.path for item in client.workspace.list(FOLDER)} == {
        f"{FOLDER}/job.py",
        f"{FOLDER}/parameters.json",
    }
    databricks.secrets["pinpipe", "word"] = "swordfish"
    databricks.clusters.requires_credentials = True
    submitted = task(
        f"/Workspace{FOLDER}/parameters.json",
        "run-{{job.run_id}}",
        spark_conf={"spark.pinpipe.secret": "{{secrets/pinpipe/word}}"},
        aws_attributes=PROFILE,
    )
    # Long enough for each state to be read on a busy machine.
    databricks.clusters.seconds_to_start = databricks.seconds_to_end = 2
    seen = []
    waiting = client.jobs.submit(run_name="batch", idempotency_token="once", tasks=[submitted])
    assert (
        client.jobs.submit(run_name="batch", idempotency_token="once", tasks=[submitted]).run_id
        == waiting.run_id
    )
    run = ended(client, waiting, seen)
    assert (
        run.state.result_state.value == "SUCCESS"
        and run.tasks[0].state.result_state.value == "SUCCESS"
    )
    assert list(dict.fromkeys(seen)) == ["PENDING", "RUNNING", "TERMINATING", "TERMINATED"]
    assert f"/run/{run.run_id}" in run.run_page_url
    assert client.jobs.get_run_output(run.tasks[0].run_id).logs == "counted with swordfish\n"
    keys = [
        found["Key"]
        for found in s3.list_objects_v2(Bucket="user-me-bucket", Prefix="answers/")["Contents"]
    ]
    assert (
        f"answers/run-{run.run_id}/_SUCCESS" in keys
        and sum(key.endswith(".parquet") for key in keys) == 1
    )
    assert not any(key.endswith(".crc") for key in keys)
    client.workspace.delete(FOLDER, recursive=True)
    with pytest.raises(ResourceDoesNotExist):
        client.workspace.get_status(FOLDER)
    assert databricks.violations == []
    # Its responses match the description of Databricks too.
    given = requests.get(
        f"{databricks.url}/api/2.2/jobs/runs/get?run_id={run.run_id}",
        headers={"Authorization": f"Bearer {databricks.token}"},
    ).json()
    output = requests.get(
        f"{databricks.url}/api/2.2/jobs/runs/get-output?run_id={run.tasks[0].run_id}",
        headers={"Authorization": f"Bearer {databricks.token}"},
    ).json()
    assert not [
        *check_members(members_of_class(Run), given, ""),
        *check_members(members_of_class(RunTask), given["tasks"][0], ""),
        *check_members(members_of_class(RunOutput), output, ""),
    ]


def test_failed_job_reports_its_error(databricks, client):
    upload(
        client,
        "job.py",
        "import sys\ndef main():\n    raise ValueError('no such ' + sys.argv[1])\nmain()\n",
    )
    run = ended(client, client.jobs.submit(tasks=[task("lake")]))
    # The run is an internal error, though only its task failed.
    assert (run.state.life_cycle_state.value, run.state.result_state.value) == (
        "INTERNAL_ERROR",
        "FAILED",
    )
    assert (
        run.state.state_message
        == "Task batch failed with message: Workload failed, see run output for details."
    )
    assert (
        run.tasks[0].state.life_cycle_state.value == "TERMINATED"
        and run.status.termination_details.code.value == "RUN_EXECUTION_ERROR"
    )
    output = client.jobs.get_run_output(run.tasks[0].run_id)
    assert output.error == "ValueError: no such lake" and "line 3, in main" in output.error_trace
    with pytest.raises(DatabricksError, match="Retrieving the output of runs with multiple tasks"):
        client.jobs.get_run_output(run.run_id)


def test_job_that_stops_the_shared_session_is_reported(databricks, client):
    upload(
        client,
        "job.py",
        "from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate().stop()\n",
    )
    assert ended(client, client.jobs.submit(tasks=[task()])).state.result_state.value == "SUCCESS"
    assert "stopped the Spark session" in databricks.violations[0]


def test_clusters_fail_or_never_start_and_runs_are_cancelled(databricks, client):
    upload(client, "job.py", "import time\ntime.sleep(600)\n")
    run = ended(
        client, client.jobs.submit(tasks=[task(spark_conf={"spark.x": "{{secrets/none/such}}"})])
    )
    assert (
        run.state.life_cycle_state.value == "INTERNAL_ERROR"
        and "SECRET_RESOLUTION_ERROR" in run.state.state_message
    )
    databricks.clusters.failure = (
        "AWS_INSUFFICIENT_INSTANCE_CAPACITY_FAILURE",
        "We currently do not have sufficient m5.large capacity",
    )
    run = ended(client, client.jobs.submit(tasks=[task()]))
    assert (
        run.state.result_state.value == "FAILED"
        and "sufficient m5.large capacity" in run.state.state_message
    )
    assert run.tasks[0].state.life_cycle_state.value == "INTERNAL_ERROR"
    databricks.clusters.failure = None
    # While its job works.
    waiting = client.jobs.submit(tasks=[task()])
    while client.jobs.get_run(waiting.run_id).state.life_cycle_state.value == "PENDING":
        time.sleep(0.05)
    client.jobs.cancel_run(waiting.run_id)
    run = ended(client, waiting)
    assert (
        run.state.life_cycle_state.value,
        run.state.result_state.value,
        run.state.user_cancelled_or_timedout,
    ) == ("TERMINATED", "CANCELED", True)
    assert databricks.runs.by_id[waiting.run_id].job.process.poll() is not None
    # Before its cluster starts, which never happens.
    databricks.clusters.seconds_to_start = None
    waiting = client.jobs.submit(tasks=[task()], timeout_seconds=1)
    assert client.jobs.get_run(waiting.run_id).state.life_cycle_state.value == "PENDING"
    assert ended(client, waiting).state.result_state.value == "TIMEDOUT"
    assert databricks.violations == []


def test_wrong_token_is_rejected(databricks):
    with pytest.raises(PermissionDenied, match="Invalid access token"):
        client_of(databricks, "dapi-wrong").current_user.me()
    assert client_of(databricks).current_user.me().user_name == "me@example.com"
    assert requests.get(f"{databricks.url}/api/2.0/preview/scim/v2/Me").status_code == 401
    assert requests.get(
        f"{databricks.url}/api/2.0/preview/scim/v2/Me", headers={"Authorization": "Bearer x"}
    ).json() == {"error_code": 403, "message": "Invalid access token."}


def test_request_outside_the_description_is_rejected_and_recorded(databricks):
    script = {"python_file": "/Workspace/job.py"}
    cluster = {"spark_version": "16.4.x-scala2.12", "node_type_id": "m5.large", "num_workers": 1}

    def problem(body, path="2.2/jobs/runs/submit"):
        databricks.violations.clear()
        answer = requests.post(
            f"{databricks.url}/api/{path}",
            json=body,
            headers={"Authorization": f"Bearer {databricks.token}"},
        )
        assert answer.status_code == 400 and answer.json()["error_code"] == "MALFORMED_REQUEST"
        return "; ".join(databricks.violations)

    def of_task(**task):
        return problem(
            {
                "tasks": [
                    {
                        "task_key": "batch",
                        "spark_python_task": script,
                        "new_cluster": cluster,
                        **task,
                    }
                ]
            }
        )

    assert "nope: unknown member" in problem({"nope": 1, "tasks": []})
    assert "1 to 100 are wanted" in problem({"run_name": "x"})
    assert "new_cluster.workers: unknown member" in of_task(new_cluster={**cluster, "workers": 1})
    assert "spark_conf['spark.x']: str is wanted, not 1" in of_task(
        new_cluster={**cluster, "spark_conf": {"spark.x": 1}}
    )
    assert "'CHEAP' is none of" in of_task(
        new_cluster={**cluster, "aws_attributes": {"availability": "CHEAP"}}
    )
    assert "python_file: required, and missing" in of_task(spark_python_task={"parameters": []})
    assert "no workers need is_single_node" in of_task(new_cluster={**cluster, "num_workers": 0})
    assert "is no instance profile" in of_task(
        new_cluster={
            **cluster,
            "aws_attributes": {"instance_profile_arn": "arn:aws:iam::123456789012:role/x"},
        }
    )
    assert "exactly one of new_cluster" in of_task(existing_cluster_id="x")
    assert "must begin with / or be a URI" in of_task(
        spark_python_task={"python_file": "job.py", "source": "WORKSPACE"}
    )
    assert "'TEXT' is none of" in problem(
        {"path": "/x", "format": "TEXT", "content": ""}, "2.0/workspace/import"
    )
    assert "not in version 2.0" in problem({"tasks": []}, "2.0/jobs/runs/submit")


def test_workspace_errors_match_databricks(client):
    with pytest.raises(ResourceDoesNotExist, match="parent folder"):
        client.workspace.import_(
            "/Users/me@example.com/none/job.py", content="", format=ImportFormat.RAW
        )
    upload(client, "job.py", "1")
    with pytest.raises(DatabricksError, match="already exists") as caught:
        client.workspace.import_(f"{FOLDER}/job.py", content="", format=ImportFormat.AUTO)
    assert caught.value.error_code == "RESOURCE_ALREADY_EXISTS"
    with pytest.raises(DatabricksError, match="is not empty"):
        client.workspace.delete(FOLDER)
    with pytest.raises(DatabricksError, match="Run 5 does not exist"):
        client.jobs.get_run(5)


def test_calls_fail_where_configured(databricks, client):
    upload(client, "job.py", "1")
    databricks.clusters.failure = ("X", "not today")
    databricks.fail("jobs/runs/submit", "drop", after=True)
    databricks.fail("jobs/runs/get", 429, times=1, headers={"Retry-After": "0"})
    databricks.fail("jobs/runs/get", 503, first=1, times=1)
    # A second request with the same token returns the existing run.
    body = {"idempotency_token": "again", "tasks": [task().as_dict()]}
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.post(
            f"{databricks.url}/api/2.2/jobs/runs/submit",
            json=body,
            headers={"Authorization": f"Bearer {databricks.token}"},
        )
    run = ended(client, client.jobs.submit(idempotency_token="again", tasks=[task()]))
    assert len(databricks.runs.by_id) == 1 and [
        call.status for call in databricks.calls("jobs/runs/submit")
    ] == [None, 200]
    assert run.state.result_state.value == "FAILED"
    assert [call.status for call in databricks.calls("jobs/runs/get")][:3] == [429, 503, 200]

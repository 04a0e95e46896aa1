"""Real Airflow with the doubles of Databricks and Managed Airflow, which the schedule tests rely
on.
"""

import base64
import json
import urllib.parse

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config as DatabricksConfig
from databricks.sdk.service.workspace import ImportFormat

from doubles.airflow import VERSIONS, AirflowHome, forward_to
from doubles.aws import AwsDouble
from doubles.databricks import Databricks

pytestmark = pytest.mark.java

FOLDER = "/Users/me@example.com/pinpipe/me"
JOB = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
lake = open(sys.argv[1]).read()
spark.read.json(lake + "/topics/me.pin").coalesce(1).write.mode("overwrite").parquet(lake + "/answers/" + sys.argv[2])
"""  # noqa: E501
# Loads in Airflow 2 and 3 alike. The braces of a secret are also Jinja's; a retry requires a token
# of its own.
DAG = """
from datetime import datetime, timedelta

from airflow import DAG
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

with DAG(
    dag_id="me_dag",
    schedule="@daily",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=2)},
) as dag:
    DatabricksSubmitRunOperator(
        task_id="batch",
        databricks_conn_id="databricks_default",
        polling_period_seconds=1,
        json={
            "run_name": "me-batch",
            "idempotency_token": "{{ macros.uuid.uuid5(macros.uuid.NAMESPACE_URL, dag.dag_id ~ run_id ~ ti.try_number) }}",
            "timeout_seconds": 600,
            "tasks": [{
                "task_key": "batch",
                "new_cluster": {
                    "spark_version": "16.4.x-scala2.12", "node_type_id": "m5.large", "num_workers": 1,
                    "aws_attributes": {"instance_profile_arn": "arn:aws:iam::123456789012:instance-profile/me-lake"},
                    "spark_conf": {"spark.pinpipe.word": "{% raw %}{{secrets/pinpipe/word}}{% endraw %}"},
                },
                "spark_python_task": {
                    "python_file": "/Workspace/Users/me@example.com/pinpipe/me/job.py",
                    "source": "WORKSPACE",
                    "parameters": ["/Workspace/Users/me@example.com/pinpipe/me/lake.txt", "airflow-{{ ts_nodash if ts_nodash is defined else run_id }}"],
                },
            }],
        },
    )
"""  # noqa: E501


def client(aws, service):
    return boto3.client(
        service,
        "us-east-1",
        endpoint_url=aws.url,
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
        config=Config(inject_host_prefix=False),
    )


@pytest.fixture
def aws():
    with AwsDouble() as aws:
        s3 = client(aws, "s3")
        s3.create_bucket(Bucket="user-me-bucket")
        s3.put_object(
            Bucket="user-me-bucket", Key="topics/me.pin/partition=0/x.json", Body=b'{"word": "a"}\n'
        )
        yield aws


@pytest.fixture
def databricks(tmp_path, aws):
    with Databricks(
        tmp_path / "databricks", s3=client(aws, "s3"), secrets={("pinpipe", "word"): "swordfish"}
    ) as databricks:
        workspace = WorkspaceClient(
            config=DatabricksConfig(host=databricks.url, token=databricks.token, auth_type="pat")
        ).workspace
        workspace.mkdirs(FOLDER)
        for name, text in (("job.py", JOB), ("lake.txt", "s3://user-me-bucket")):
            workspace.import_(
                f"{FOLDER}/{name}",
                content=base64.b64encode(text.encode()).decode(),
                format=ImportFormat.RAW,
            )
        yield databricks


def connection(databricks, token=None):
    """The provider takes only the host of a URL: scheme and port are separate members."""
    url = urllib.parse.urlsplit(databricks.url)
    return {
        "conn_type": "databricks",
        "host": url.hostname,
        "schema": url.scheme,
        "port": url.port,
        "password": token or databricks.token,
    }


def environment_of_managed_airflow(aws):
    """Creates the smallest environment that the double accepts."""
    ec2, s3 = client(aws, "ec2"), client(aws, "s3")
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]][:2]
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": ["airflow.amazonaws.com", "airflow-env.amazonaws.com"]},
            }
        ],
    }
    role = client(aws, "iam").create_role(
        RoleName="airflow", AssumeRolePolicyDocument=json.dumps(trust)
    )["Role"]["Arn"]
    s3.create_bucket(Bucket="user-me-airflow")
    s3.put_bucket_versioning(
        Bucket="user-me-airflow", VersioningConfiguration={"Status": "Enabled"}
    )
    s3.put_public_access_block(
        Bucket="user-me-airflow",
        PublicAccessBlockConfiguration={
            name: True
            for name in (
                "BlockPublicAcls",
                "IgnorePublicAcls",
                "BlockPublicPolicy",
                "RestrictPublicBuckets",
            )
        },
    )
    mwaa = client(aws, "mwaa")
    mwaa.create_environment(
        Name="me-airflow",
        DagS3Path="dags",
        ExecutionRoleArn=role,
        NetworkConfiguration={"SubnetIds": subnets},
        SourceBucketArn="arn:aws:s3:::user-me-airflow",
    )
    while mwaa.get_environment(Name="me-airflow")["Environment"]["Status"] == "CREATING":
        pass
    return mwaa


@pytest.mark.parametrize("version", VERSIONS)
def test_dag_runs_spark_through_databricks(tmp_path, aws, databricks, version):
    home = AirflowHome(
        tmp_path / "airflow",
        version,
        AIRFLOW_CONN_DATABRICKS_DEFAULT=json.dumps(connection(databricks)),
    )
    (home.dags / "me_dag.py").write_text(DAG)
    (home.dags / "broken_dag.py").write_text(
        "from airflow import nothing_such  # Airflow only reads files that speak of a dag"
    )
    parsed = home.parsed()
    assert list(home.import_errors()) == [str(home.dags / "broken_dag.py")]
    assert (
        parsed["dags"]["me_dag"]["tasks"] == {"batch": "DatabricksSubmitRunOperator"}
        and parsed["warnings"] == []
    )
    (home.dags / "broken_dag.py").unlink()
    home.test("me_dag")
    (submitted,) = databricks.calls("jobs/runs/submit")
    # Airflow sends every number as text.
    assert (
        submitted.version == "2.1"
        and submitted.body["tasks"][0]["new_cluster"]["num_workers"] == "1"
    )
    assert submitted.body["tasks"][0]["new_cluster"]["spark_conf"] == {
        "spark.pinpipe.word": "{{secrets/pinpipe/word}}"
    }
    assert len(submitted.body["idempotency_token"]) == 36
    answers = client(aws, "s3").list_objects_v2(Bucket="user-me-bucket", Prefix="answers/airflow-")
    assert [found["Key"] for found in answers["Contents"] if found["Key"].endswith("_SUCCESS")]
    assert databricks.violations == []


@pytest.mark.parametrize("version", VERSIONS)
def test_managed_airflow_calls_are_answered_by_real_airflow(tmp_path, aws, databricks, version):
    databricks.clusters.failure = ("AWS_INSUFFICIENT_INSTANCE_CAPACITY_FAILURE", "no m5.large left")
    home = AirflowHome(tmp_path / "airflow", version)
    (home.dags / "me_dag.py").write_text(
        DAG.replace('"retries": 1', '"retries": 0').replace("@daily", "@yearly")
    )
    home.load()
    mwaa = environment_of_managed_airflow(aws)

    def ask(method, path, **body):
        given = {"Body": body} if body else {}
        return mwaa.invoke_rest_api(Name="me-airflow", Method=method, Path=path, **given)[
            "RestApiResponse"
        ]

    with home.api() as api, home.scheduler():
        aws.airflow = forward_to(api)
        assert [dag["dag_id"] for dag in ask("GET", "/dags")["dags"]] == ["me_dag"]
        ask(
            "POST",
            "/connections",
            connection_id="databricks_default",
            **connection(databricks, "dapi-old"),
        )
        shown = ask("GET", "/connections/databricks_default")
        assert shown["host"] == "127.0.0.1" and shown.get("password") in (None, "***")
        with pytest.raises(ClientError) as caught:
            ask("POST", "/connections", connection_id="databricks_default", conn_type="databricks")
        assert caught.value.response["RestApiStatusCode"] == 409
        ask(
            "PATCH",
            "/connections/databricks_default",
            connection_id="databricks_default",
            **connection(databricks),
        )
        assert ask("PATCH", "/dags/me_dag", is_paused=False)["is_paused"] is False
        when = {} if home.is_2 else {"logical_date": None}
        run = ask("POST", "/dags/me_dag/dagRuns", dag_run_id="by-hand", **when)
        assert run["state"] == "queued"
        assert home.wait_for_run(api, "me_dag", "by-hand")["state"] == "failed"
        assert ask("GET", "/dags/me_dag/dagRuns/by-hand")["state"] == "failed"
        ask("DELETE", "/connections/databricks_default")
        with pytest.raises(ClientError) as caught:
            ask("GET", "/connections/databricks_default")
        assert caught.value.response["RestApiStatusCode"] == 404
    # Unpaused, the DAG also ran for its last interval.
    assert {call.status for call in databricks.calls("jobs/runs/submit")} == {200}
    assert databricks.violations == [] and aws.problems == []

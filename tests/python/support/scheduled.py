"""Scheduled batch for tests: the program, test doubles of AWS and Databricks, and real Airflow."""

import contextlib
import datetime
import io
import json
import threading

import boto3
import pyarrow.parquet
from botocore.config import Config
from botocore.exceptions import ClientError

from doubles.aws import AwsDouble
from doubles.databricks import Databricks
from support.cloud import ip_ranges
from support.lakes import write_lake
from support.pinpipe import Pinpipe
from support.provisioned import Provisioned, client

LAKE, AIRFLOW = "user-me-bucket", "user-me-airflow"
DAG, DAG_KEY = "me_dag", "dags/me_dag.py"
JOB = "/Users/me@example.com/pinpipe/me/scheduled"
RESOURCES = {"databricks-job", "airflow-dag", "airflow-connection"}
# Only runs that tests trigger, and a short polling interval.
CALM = {
    "schedule": {
        "cron": "0 0 29 2 *",
        "start_date": datetime.date.today().isoformat(),
        "retries": 0,
    },
    "databricks": {"poll_ms": 1000},
}


class Scheduled(Provisioned):
    """A pipeline with Airflow and Databricks."""

    def __init__(self, folder, aws, ranges_url, databricks, sections=None):
        self.databricks = databricks
        subnets = sorted(
            client(aws, "ec2").describe_subnets()["Subnets"],
            key=lambda subnet: subnet["AvailabilityZone"],
        )
        airflow = {"enabled": True, "subnets": [subnet["SubnetId"] for subnet in subnets[:2]]}
        super().__init__(folder, aws, ranges_url, {"airflow": airflow, **(sections or {})})
        self.s3 = self.boto("s3")

    @property
    def environment(self):
        return {
            **super().environment,
            "DATABRICKS_HOST": self.databricks.url,
            "DATABRICKS_TOKEN": self.databricks.token,
            "HOME": str(self.folder),
        }

    def fill(self, lake):
        """Uploads a lake of a pipeline with the id `local` to the bucket of this pipeline."""
        for path in lake.rglob("*.json"):
            self.s3.upload_file(
                str(path), LAKE, str(path.relative_to(lake)).replace("local.", "me.")
            )

    def seed(self, posts, objects):
        """Fills the bucket with generated posts."""
        self.run("seed", "--posts", posts)
        write_lake(self.data / "source.db", self.folder / "lake", objects)
        self.fill(self.folder / "lake")

    def keys(self, bucket, prefix=""):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def object(self, bucket, key):
        return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    def parquet(self, folder):
        """Returns the rows that Spark wrote to a folder of the lake's bucket."""
        (key,) = [key for key in self.keys(LAKE, f"{folder}/") if key.endswith(".parquet")]
        return pyarrow.parquet.read_table(io.BytesIO(self.object(LAKE, key))).to_pylist()

    def job(self, name="job.py"):
        """Returns the path of a file of the job in the workspace."""
        return self.databricks.workspace.local(f"{JOB}/{name}")

    def failing(self, *arguments, code=1, **options):
        """Runs a command that must fail with one error and a hint. Returns both."""
        stderr = self.run(*arguments, code=code, **options).stderr
        error = stderr[stderr.index("error: ") :]
        assert error.count("error: ") == 1 and "\nhint: " in error and "panicked" not in stderr, (
            stderr
        )
        return error


@contextlib.contextmanager
def scheduled(folder, **sections):
    """Yields a pipeline, on the test doubles, before its first apply."""
    with AwsDouble(settle_reads=0) as aws, ip_ranges() as url:
        # Many threads of the Databricks double download and upload objects.
        s3 = boto3.client(
            "s3",
            "us-east-1",
            endpoint_url=aws.url,
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(max_pool_connections=20),
        )
        with Databricks(folder / "databricks", s3=s3) as databricks:
            yield Scheduled(folder / "pipeline", aws, url, databricks, sections)
            assert databricks.violations == [] and aws.problems == []


def answers_of(report):
    """Returns the rows of each answer, by its name."""
    return {answer["name"]: answer["rows"] for answer in report["answers"]}


def counts_of(report):
    """Returns records, rejects, duplicates and rows of each kind."""
    return {
        found["kind"]: tuple(found[name] for name in ("records", "rejects", "duplicates", "rows"))
        for found in report["inputs"]
    }


def connection(databricks):
    """Returns the value of `AIRFLOW_CONN_DATABRICKS_DEFAULT` for the double."""
    host, port = databricks.url.removeprefix("http://").split(":")
    return json.dumps(
        {
            "conn_type": "databricks",
            "host": host,
            "schema": "http",
            "port": int(port),
            "password": databricks.token,
        }
    )


class Sync:
    """Copies the DAGs of a bucket to Airflow's folder at intervals, as Managed Airflow does."""

    def __init__(self, cloud, home):
        self.cloud, self.home = cloud, home
        self.is_on = True
        # Transforms the content of each copied file.
        self.change = lambda text: text
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def follow(self):
        while not self.stop.wait(0.2):
            if self.is_on:
                self.once()

    def once(self):
        try:
            wanted = {
                key.removeprefix("dags/"): self.change(self.cloud.object(AIRFLOW, key))
                for key in self.cloud.keys(AIRFLOW, "dags/")
            }
        except ClientError:
            # The bucket does not exist yet, or has been deleted.
            return
        for name, text in wanted.items():
            path = self.home.dags / name
            if not path.exists() or path.read_bytes() != text:
                path.write_bytes(text)
        for path in self.home.dags.glob("*.py"):
            if path.name not in wanted:
                path.unlink()


def login(databricks, folder):
    return {
        "DATABRICKS_HOST": databricks.url,
        "DATABRICKS_TOKEN": databricks.token,
        "HOME": str(folder),
    }


def configured(folder, id="me", settings="", airflow="enabled = true", target="aws"):
    """Returns the program in a folder, configured with Airflow, before its first apply."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pinpipe.toml").write_text(
        f'target = "{target}"\nid = "{id}"\n[airflow]\n{airflow}\nsubnets = '
        f'["subnet-1", "subnet-2"]\n{settings}'
    )
    return Pinpipe(folder)

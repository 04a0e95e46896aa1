"""A job's cluster: real Spark on this machine."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

from .lake import Lake

DRIVER = pathlib.Path(__file__).with_name("driver.py")
SECRET = re.compile(r"\{\{secrets/([\w.@-]+)/([\w.@-]+)\}\}")
# Small, so that a test takes seconds; they override the request.
SMALL = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "4",
    "spark.default.parallelism": "2",
    "spark.log.level": "WARN",
}


class Broken(Exception):
    """The cluster does not start, with code and message."""

    def __init__(self, code, kind, message):
        super().__init__(message)
        self.code = code
        self.kind = kind


class Clusters:
    """How clusters behave."""

    def __init__(self, folder, s3, secrets):
        self.folder = pathlib.Path(folder)
        self.s3 = s3
        self.secrets = secrets
        # Seconds until a cluster is up; None: it never is.
        self.seconds_to_start = 0.2
        # (code, message) of what ends every cluster that starts.
        self.failure = None
        # Whether a job only reaches S3 with an instance profile or keys.
        self.requires_credentials = False
        # Existing all-purpose clusters, by their id.
        self.existing = {
            "1121-164747-there": {
                "cluster_name": "there",
                "spark_version": "16.4.x-scala2.12",
                "node_type_id": "m5.large",
                "num_workers": 1,
            }
        }

    def resolved(self, settings):
        """Returns settings with their secrets resolved."""

        def secret(found):
            if found.groups() not in self.secrets:
                raise Broken(
                    "SECRET_RESOLUTION_ERROR",
                    "SERVICE_FAULT",
                    "Failed to fetch secrets referred to in Spark Conf",
                )
            return self.secrets[found.groups()]

        return {name: SECRET.sub(secret, value) for name, value in settings.items()}

    def prepare(self, task):
        """Returns settings and environment of a task's cluster; raises if it does not start."""
        if self.failure:
            raise Broken(self.failure[0], "CLOUD_FAILURE", self.failure[1])
        cluster = task.get("new_cluster") or self.existing.get(task.get("existing_cluster_id"), {})
        settings, environment = (
            self.resolved(cluster.get("spark_conf", {})),
            self.resolved(cluster.get("spark_env_vars", {})),
        )
        keys = any(
            re.fullmatch(
                r"(spark\.hadoop\.)?fs\.s3a?\.(bucket\.[\w.-]+\.)?(access\.key|aws\.credentials\.provider)",
                name,
            )
            for name in settings
        )
        reaches = (
            keys
            or "AWS_ACCESS_KEY_ID" in environment
            or cluster.get("aws_attributes", {}).get("instance_profile_arn")
            or not task.get("new_cluster")
        )
        return settings, environment, bool(reaches) or not self.requires_credentials


class Job:
    """One task that runs, or has run, on a cluster."""

    def __init__(self, clusters, name, workspace, task, arguments):
        self.folder = clusters.folder / name
        self.folder.mkdir(parents=True)
        settings, environment, reaches_lake = clusters.prepare(task)
        self.lake = (
            Lake(clusters.s3, self.folder / "lake") if clusters.s3 and reaches_lake else None
        )
        self.outcome = {}
        self.process = None
        self.settings = settings
        self.environment = {
            **os.environ,
            **environment,
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        file = task["spark_python_task"]["python_file"]
        self.instructions = {
            "file": str(workspace.local(file)),
            "arguments": [
                str(workspace.local(a)) if a.startswith("/Workspace/") else a for a in arguments
            ],
            "outcome": str(self.folder / "outcome.json"),
        }
        if workspace.local(file) in workspace.notebooks or not workspace.local(file).is_file():
            self.outcome = {
                "error": (
                    f"Cannot read the python file {file}. Please check driver logs for more "
                    "details."
                ),
                "trace": "",
            }

    def start(self):
        """Starts Spark; returns whether there is anything to wait for."""
        if self.outcome:
            return False
        settings = dict(self.settings)
        if self.lake:
            self.lake.folder.mkdir()
            self.lake.fetch()
            settings.update(self.lake.settings())
        settings.update(SMALL)
        settings["spark.local.dir"] = str(self.folder / "scratch")
        settings["spark.sql.warehouse.dir"] = str(self.folder / "warehouse")
        # Spark reads this file as Java reads properties: a backslash starts an escape there.
        lines = [f"{name} {value}".replace("\\", "\\\\") for name, value in settings.items()]
        (self.folder / "spark.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "instructions.json").write_text(json.dumps(self.instructions))
        submit = pathlib.Path(sys.executable).with_name("spark-submit")
        with open(self.folder / "stdout", "wb") as out, open(self.folder / "stderr", "wb") as err:
            command = [
                submit,
                "--properties-file",
                self.folder / "spark.conf",
                DRIVER,
                self.folder / "instructions.json",
            ]
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return True

    def ended(self):
        return self.process.poll() is not None

    def kill(self):
        """Kills Spark and its children; what it has written is kept in the lake, as in S3."""
        if self.process and not self.ended():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def finish(self):
        """Returns error and trace, if it failed; uploads what it has written."""
        if self.process:
            self.process.wait()
            outcome = self.folder / "outcome.json"
            self.outcome = (
                json.loads(outcome.read_text())
                if outcome.exists()
                else {
                    "error": (
                        "The spark driver has stopped unexpectedly and is restarting "
                        f"({self.process.returncode})"
                    ),
                    "trace": self.log("stderr"),
                }
            )
            if self.lake:
                self.lake.upload_changes()
        return self.outcome

    def log(self, name):
        path = self.folder / name
        return path.read_text(errors="replace")[-5_000_000:] if path.exists() else ""

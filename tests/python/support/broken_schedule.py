"""A pipeline with Airflow, a schedule and Databricks for the fault tests."""

import shutil

from support.faults import BrokenCloud
from support.scheduled import AIRFLOW, CALM, Scheduled

KEYS = (
    "bucket",
    "group-airflow",
    "role-airflow",
    "bucket-airflow",
    "airflow-requirements",
    "airflow",
    "databricks-job",
    "airflow-dag",
    "airflow-connection",
)
# Everything that Airflow depends on, and nothing else.
ONLY = ("--only", ",".join(KEYS))
FOLDER = "/Users/me@example.com/pinpipe"


def two_subnets(cloud):
    """Returns subnets in two zones, which an environment requires."""
    found = sorted(
        cloud.boto("ec2").describe_subnets()["Subnets"],
        key=lambda subnet: subnet["AvailabilityZone"],
    )
    return [subnet["SubnetId"] for subnet in found[:2]]


class Connections:
    """The connections of Airflow's REST API. They belong to an environment and are deleted with the
    environment.
    """

    def __init__(self, aws):
        self.aws = aws

    def of(self, environment):
        return environment.__dict__.setdefault("connections", {})

    def __call__(self, name, method, path, query, body):
        kept = self.of(self.aws.services["mwaa"].environments["us-east-1", name])
        key = body["connection_id"] if method == "POST" else path.removeprefix("/connections/")
        if method == "POST" and key in kept:
            return 409, {"title": "Conflict", "status": 409, "detail": f"{key} already exists"}
        if method != "POST" and key not in kept:
            return 404, {
                "title": "Not Found",
                "status": 404,
                "detail": "The Connection was not found",
            }
        if method == "DELETE":
            del kept[key]
            return 204, {}
        if method != "GET":
            kept[key] = {**kept.get(key, {}), **body}
        return 200, {member: value for member, value in kept[key].items() if member != "password"}


class BrokenSchedule(Scheduled, BrokenCloud):
    """A scheduled pipeline whose AWS account and Databricks workspace can be reset."""

    def __init__(self, folder, aws, ranges_url, databricks):
        super().__init__(folder, aws, ranges_url, databricks, CALM)
        self.clear()

    def clear(self):
        super().clear()
        self.aws.airflow = Connections(self.aws)
        self.databricks.faults.clear()
        shutil.rmtree(self.databricks.workspace.local(FOLDER), ignore_errors=True)
        if self.sections:
            self.change(airflow={"subnets": two_subnets(self)})

    def done(self):
        super().done()
        violations = list(self.databricks.violations)
        self.databricks.violations.clear()
        assert not violations, violations

    def everything(self):
        """Returns a deterministic snapshot of AWS, Airflow and Databricks."""
        found = self.aws.snapshot()
        for environment in found["environments"]:
            version = environment["settings"].pop("RequirementsS3ObjectVersion")
            current = self.s3.head_object(Bucket=AIRFLOW, Key="requirements.txt")["VersionId"]
            environment["settings"]["requirements"] = (
                "as they are in the bucket" if version == current else "older ones"
            )
        environments = self.aws.services["mwaa"].environments.values()
        found["connections"] = [
            {"name": name, **members}
            for each in environments
            for name, members in self.aws.airflow.of(each).items()
        ]
        place = self.databricks.workspace.local(FOLDER)
        found["files"] = [
            {"name": str(path.relative_to(place)), "text": path.read_text()}
            for path in sorted(place.rglob("*"))
            if path.is_file()
        ]
        return found

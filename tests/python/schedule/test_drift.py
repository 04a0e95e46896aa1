"""`provision` and `destroy` of a schedule: drift, unmanaged connections, and the secrecy of the
token.
"""

import re

import pytest

from doubles.airflow import AirflowHome, forward_to
from doubles.aws import Drop
from support.scheduled import AIRFLOW, CALM, DAG_KEY, JOB, RESOURCES, scheduled

pytestmark = pytest.mark.java

CONNECTION = "/connections/databricks_default"
ONLY = ("--only", ",".join(RESOURCES))


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A pipeline with a schedule, and the REST API of real Airflow."""
    folder = tmp_path_factory.mktemp("scheduled")
    home = AirflowHome(folder / "airflow")
    with scheduled(folder, **CALM) as cloud, home.api() as api:
        cloud.api, cloud.home = api, home
        cloud.aws.airflow = forward_to(api)
        cloud.apply()
        yield cloud


@pytest.fixture
def cloud(standing):
    """The pipeline, applied and without drift."""
    assert standing.plan() == {}
    yield standing
    standing.change(airflow={"enabled": True}, databricks={"folder": None})
    standing.apply(*ONLY)


def connection_of(cloud):
    status, found = cloud.api.request("GET", CONNECTION)
    return found if status == 200 else None


def patched(cloud, **members):
    status, _ = cloud.api.request(
        "PATCH",
        CONNECTION,
        None,
        {"connection_id": "databricks_default", "conn_type": "databricks", **members},
    )
    assert status == 200


def put(cloud, key, text):
    cloud.s3.put_object(Bucket=AIRFLOW, Key=key, Body=text)


def remove_folder(cloud):
    for name in ("job.py", "parameters.json"):
        cloud.job(name).unlink()
    cloud.databricks.workspace.local(JOB).rmdir()


# Changes made outside pinpipe, and the plan after each.
DRIFTS = {
    "the job is another": (
        lambda cloud: cloud.job().write_text("print('mine')"),
        "databricks-job",
        ("update", "`job.py` differs"),
    ),
    "its parameters are gone": (
        lambda cloud: cloud.job("parameters.json").unlink(),
        "databricks-job",
        ("update", "`parameters.json` is missing"),
    ),
    "its parameters are others": (
        lambda cloud: cloud.job("parameters.json").write_text("{}"),
        "databricks-job",
        ("update", "`parameters.json` differs"),
    ),
    "the folder is gone": (remove_folder, "databricks-job", ("create", "does not exist")),
    "the DAG is another": (
        lambda cloud: put(cloud, DAG_KEY, "# mine"),
        "airflow-dag",
        ("update", "the DAG was edited or comes from another version of pinpipe"),
    ),
    "the DAG is gone": (
        lambda cloud: cloud.s3.delete_object(Bucket=AIRFLOW, Key=DAG_KEY),
        "airflow-dag",
        ("create", "does not exist"),
    ),
    "another host": (
        lambda cloud: patched(cloud, host="elsewhere.example"),
        "airflow-connection",
        ("update", 'its host is "elsewhere.example", not "127.0.0.1"'),
    ),
    "another port": (
        lambda cloud: patched(cloud, port=1),
        "airflow-connection",
        ("update", "its port is 1, not "),
    ),
    "another kind": (
        lambda cloud: patched(cloud, conn_type="http"),
        "airflow-connection",
        ("update", 'its conn_type is "http", not "databricks"'),
    ),
    "the connection is gone": (
        lambda cloud: cloud.api.request("DELETE", CONNECTION),
        "airflow-connection",
        ("create", "does not exist"),
    ),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_is_reported_and_repaired(cloud, name):
    change, key, (action, reason) = DRIFTS[name]
    files = {
        path.name: path.read_bytes() for path in cloud.databricks.workspace.local(JOB).iterdir()
    }
    dag, connection = cloud.object(AIRFLOW, DAG_KEY), connection_of(cloud)
    change(cloud)
    planned = cloud.plan()
    assert set(planned) == {key} and planned[key][0] == action and reason in planned[key][1], (
        planned
    )
    cloud.apply()
    assert cloud.plan() == {}
    assert {
        path.name: path.read_bytes() for path in cloud.databricks.workspace.local(JOB).iterdir()
    } == files
    assert cloud.object(AIRFLOW, DAG_KEY) == dag and connection_of(cloud) == connection


def test_configuration_change_updates_the_files(cloud):
    cloud.change(databricks={"node_type": "i3.xlarge"}, batch={"median": "lower"})
    assert {key: action for key, (action, _) in cloud.plan().items()} == {
        "databricks-job": "update",
        "airflow-dag": "update",
    }
    cloud.apply()
    assert b'"node_type_id": "i3.xlarge"' in cloud.object(AIRFLOW, DAG_KEY) and cloud.plan() == {}
    cloud.change(databricks={"node_type": None}, batch={"median": None})
    cloud.apply()


def test_moved_job_is_deleted_from_its_previous_folder(cloud):
    cloud.change(databricks={"folder": "/Shared/jobs"})
    planned = cloud.plan()
    cloud.apply()
    assert cloud.plan() == {} and b"/Workspace/Shared/jobs/me/scheduled/job.py" in cloud.object(
        AIRFLOW, DAG_KEY
    )
    assert not cloud.databricks.workspace.local(JOB).exists()
    assert set(planned) == {"databricks-job", "airflow-dag"}


def test_lost_response_to_creating_the_connection_is_harmless(cloud):
    cloud.api.request("DELETE", CONNECTION)
    lost = []

    def lose(call):
        if call.parameters.get("Path") == "/connections" and not lost:
            lost.append(call)
            raise Drop()

    cloud.aws.after_call = lose
    try:
        cloud.run("provision", "--yes")
    finally:
        cloud.aws.after_call = None
    assert lost and cloud.plan() == {} and connection_of(cloud)


def test_connection_of_another_team_is_left_alone(cloud):
    cloud.api.request("DELETE", CONNECTION)
    theirs = {
        "connection_id": "databricks_default",
        "conn_type": "databricks",
        "host": "theirs.example",
        "password": "dapi-theirs",
        "description": "ours, says another team",
    }
    assert cloud.api.request("POST", "/connections", None, theirs)[0] == 200
    before = connection_of(cloud)
    try:
        assert cloud.plan() == {}
        assert "theirs.example, not managed by pinpipe" in cloud.run("status").stdout
        cloud.run("provision", "--yes")
        cloud.run("destroy", "--yes", *ONLY)
        assert (
            connection_of(cloud) == before
            and "dapi-theirs"
            in cloud.home.run("connections", "get", "databricks_default", "-o", "json").stdout
        )
    finally:
        cloud.api.request("DELETE", CONNECTION)


def test_default_connection_of_airflow_is_replaced(cloud):
    cloud.api.request("DELETE", CONNECTION)
    cloud.home.run("connections", "create-default-connections")
    assert connection_of(cloud)["host"] == "localhost"
    planned = cloud.plan()
    assert (
        set(planned) == {"airflow-connection"} and planned["airflow-connection"][0] == "update"
    ), planned
    cloud.apply()
    assert cloud.plan() == {} and connection_of(cloud)["host"] == "127.0.0.1"


def test_disabled_schedule_is_deleted(cloud):
    cloud.change(schedule={"enabled": False})
    assert {key: action for key, (action, _) in cloud.plan().items()} == dict.fromkeys(
        RESOURCES, "delete"
    )
    cloud.apply()
    assert cloud.plan() == {} and connection_of(cloud) is None
    assert cloud.keys(AIRFLOW, "dags/") == [] and not cloud.databricks.workspace.local(JOB).exists()
    cloud.change(schedule={"enabled": True})


def test_lost_state_is_rebuilt(cloud):
    (cloud.data / "aws/state.json").unlink()
    assert not RESOURCES & set(cloud.plan())
    cloud.apply()
    cloud.run("destroy", "--yes", *ONLY)
    assert (
        connection_of(cloud) is None
        and cloud.keys(AIRFLOW, "dags/") == []
        and not cloud.databricks.workspace.local(JOB).exists()
    )


def test_token_is_stored_only_in_the_connection(cloud):
    databricks = cloud.databricks
    databricks.token = "dapi-nobody-else-reads-0123456789"
    # Instead of a scheduler.
    (cloud.home.dags / "me_dag.py").write_bytes(cloud.object(AIRFLOW, DAG_KEY))
    cloud.home.load()
    commands = (
        ("destroy", "--yes", *ONLY),
        ("provision", "--plan", "--output", "json"),
        ("provision", "--yes"),
        ("provision", "--plan"),
        ("status", "--output", "json"),
        ("batch", "schedule", "--print"),
        ("batch", "schedule"),
    )
    runs = [cloud.run(*command, "-vv") for command in commands]
    texts = [done.stdout + done.stderr for done in runs]
    files = [
        path
        for folder in (cloud.folder, databricks.workspace.folder)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    texts += [path.read_bytes().decode(errors="replace") for path in files]
    texts += [cloud.object(AIRFLOW, key).decode() for key in cloud.keys(AIRFLOW)]
    assert len(files) >= 4 and cloud.data / "aws/state.json" in files
    assert [text[:200] for text in texts if databricks.token in text] == []
    assert (
        databricks.token
        in cloud.home.run("connections", "get", "databricks_default", "-o", "json").stdout
    )


def test_destroy_without_credentials_reports_the_kept_job(cloud):
    no_credentials = {"DATABRICKS_HOST": "", "DATABRICKS_TOKEN": "", "HOME": str(cloud.folder)}
    stderr = cloud.run("destroy", "--yes", *ONLY, env=no_credentials).stderr
    assert "deleted airflow-dag" in stderr and "deleted airflow-connection" in stderr
    assert re.search(
        r"pinpipe/me/scheduled` is not deleted from the Databricks workspace: "
        r"no Databricks workspace is configured",
        stderr,
    ), stderr
    assert cloud.databricks.workspace.local(JOB).exists()


def test_destroy_deletes_everything(cloud):
    cloud.run("destroy", "--yes", *ONLY)
    assert (
        connection_of(cloud) is None
        and cloud.keys(AIRFLOW, "dags/") == []
        and not cloud.databricks.workspace.local(JOB).exists()
    )
    cloud.apply()
    # The connection is deleted with its environment.
    cloud.run("destroy", "--yes", "--data")
    assert not cloud.databricks.workspace.local(JOB).exists() and not any(
        cloud.aws.snapshot().values()
    )
    cloud.apply()

"""Real Apache Airflow as Managed Airflow runs it: its commands, its REST API and its scheduler.

Each version has a virtual environment of its own, since its dependencies conflict with those of the
tests. The versions are two of Managed Airflow: the default of `pinpipe`, and the newest. Their
lists
of requirements are complete, resolved by `uv pip compile --exclude-newer` for the days after each
release, so no constraints file is needed.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import requests

from support.cache import CACHE, installing
from support.paths import TESTS
from support.ports import free_port
from support.wait import wait_until

REQUIREMENTS = {
    "2.10.3": TESTS / "airflow-requirements.txt",
    "3.0.6": TESTS / "airflow-3-requirements.txt",
}
VERSIONS = tuple(REQUIREMENTS)
# Settings of both versions; each ignores those of the other.
SETTINGS = {
    "CORE__LOAD_EXAMPLES": "False",
    # Otherwise the API server does this at every start, which takes seconds.
    "FAB__UPDATE_FAB_PERMS": "False",
    "API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "API_AUTH__JWT_SECRET": ("a secret that all processes of this Airflow share"),
    "WEBSERVER__SECRET_KEY": "another one",
    "API__SECRET_KEY": "another one",
    "CORE__FERNET_KEY": "d2hhdCBldmVyeSBwcm9jZXNzIGhlcmUga25vd3MgISE=",
    # No telemetry.
    "USAGE_DATA_COLLECTION__ENABLED": "False",
    "SCHEDULER__DAG_DIR_LIST_INTERVAL": "1",
    "SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "1",
    "SCHEDULER__USE_JOB_SCHEDULE": "True",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "1",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1",
}
PARSE = """
import json, sys, warnings
from airflow.models.dagbag import DagBag
bag = DagBag(sys.argv[1], include_examples=False)
warned = [str(warning) for file, found in getattr(bag, "captured_warnings", {}).items() for warning in found if str(warning).startswith(file)]
dags = {name: {"tasks": {task.task_id: type(task).__name__ for task in dag.tasks}, "catchup": dag.catchup, "timetable": dag.timetable.summary} for name, dag in bag.dags.items()}
print("PARSED " + json.dumps({"errors": bag.import_errors, "warnings": warned, "dags": dags}))
"""  # noqa: E501
# Without gunicorn, whose workers start slowly, and without `--debug`, which restarts when a DAG
# changes.
SERVE = (
    "import sys; from airflow.www.app import create_app; "
    "create_app().run(host='127.0.0.1', port=int(sys.argv[1]), threaded=True)"
)


def environment(home, dags, version, **settings):
    """Returns the environment of an Airflow with this home, without variables that would change its
    configuration.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "PINPIPE", "AWS_", "PYTHON"))
    }
    own = {
        "CORE__DAGS_FOLDER": dags,
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "CORE__EXECUTOR": "SequentialExecutor" if version.startswith("2") else "LocalExecutor",
    }
    given = {
        f"AIRFLOW__{name}": str(value) for name, value in {**SETTINGS, **own, **settings}.items()
    }
    # Its executor starts `airflow` by that name.
    path = f"{CACHE / f'airflow-{version}-venv' / 'bin'}:{kept['PATH']}"
    return {
        **kept,
        **given,
        "PATH": path,
        "AIRFLOW_HOME": str(home),
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::UserWarning",
    }


def installed(version):
    """Returns the virtual environment of a version, installed at first use, with an empty database
    to copy.
    """
    venv, wanted = CACHE / f"airflow-{version}-venv", REQUIREMENTS[version].read_text()
    with installing(f"airflow-{version}"):
        marker = venv / "installed.txt"
        if not marker.exists() or marker.read_text() != wanted:
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            # The list is complete, so there is nothing to resolve; pip alone takes ten times as
            # long.
            subprocess.run(
                [
                    venv / "bin" / "pip",
                    "install",
                    "-q",
                    "--disable-pip-version-check",
                    "uv==0.13.9",
                ],
                check=True,
            )
            subprocess.run(
                [
                    venv / "bin" / "uv",
                    "pip",
                    "install",
                    "-q",
                    "--no-deps",
                    "--python",
                    venv / "bin" / "python",
                    "-r",
                    REQUIREMENTS[version],
                ],
                check=True,
            )
            home = venv / "home"
            (home / "dags").mkdir(parents=True)
            commands = (
                [["db", "migrate"], ["sync-perm"]]
                if version.startswith("2")
                else [["db", "migrate"]]
            )
            for command in commands:
                subprocess.run(
                    [venv / "bin" / "airflow", *command],
                    env=environment(home, home / "dags", version),
                    check=True,
                    capture_output=True,
                )
            marker.write_text(wanted)
    return venv


class Api:
    """The REST API of a running Airflow."""

    def __init__(self, url, headers):
        self.url = url
        self.headers = headers

    def request(self, method, path, query=None, body=None):
        """Returns status and body; paths are those of Airflow's documentation, without version."""
        # Airflow rejects an announced but empty body.
        given = {"json": body or {}} if method in ("POST", "PATCH", "PUT") else {}
        answer = requests.request(
            method, self.url + path, params=query or None, headers=self.headers, timeout=60, **given
        )
        try:
            return answer.status_code, answer.json() if answer.content else {}
        except ValueError:
            return answer.status_code, {"detail": answer.text}


def forward_to(api):
    """Returns a value for `AwsDouble.airflow`, with which real Airflow answers InvokeRestApi."""
    return lambda name, method, path, query, body: api.request(method, path, query, body)


class AirflowHome:
    """An Airflow with a database and a folder of DAGs of its own."""

    def __init__(self, folder, version=VERSIONS[0], **variables):
        """`variables` are added to the environment of every process, such as
        AIRFLOW_CONN_DATABRICKS_DEFAULT.
        """
        self.version = version
        self.venv = installed(version)
        self.folder = pathlib.Path(folder).resolve()
        self.dags = self.folder / "dags"
        self.dags.mkdir(parents=True)
        shutil.copy(self.venv / "home" / "airflow.db", self.folder)
        # Every caller is an administrator: on AWS, IAM has authorized the call before.
        (self.folder / "webserver_config.py").write_text(
            'AUTH_ROLE_PUBLIC = "Admin"\nWTF_CSRF_ENABLED = False\n'
        )
        self.port = free_port()
        serving = {
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "API__PORT": self.port,
            "API__HOST": "127.0.0.1",
            "API__WORKERS": "1",
            "LOGGING__WORKER_LOG_SERVER_PORT": free_port(),
        }
        self.environment = {**environment(self.folder, self.dags, version, **serving), **variables}

    @property
    def is_2(self):
        return self.version.startswith("2")

    def run(self, *arguments, code=0, timeout=300, env=None):
        """Runs an `airflow` command, returns the completed process."""
        command = [self.venv / "bin" / "airflow", *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert code is None or done.returncode == code, (
            f"airflow {arguments} ended with "
            f"{done.returncode}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
        )
        return done

    def parsed(self):
        """Parses the folder of DAGs with Airflow: errors by file, warnings, and DAGs with their
        tasks.
        """
        done = subprocess.run(
            [self.venv / "bin" / "python", "-W", "default", "-c", PARSE, self.dags],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        found = [line for line in done.stdout.splitlines() if line.startswith("PARSED ")]
        assert found, f"{done.stdout}\n{done.stderr}"
        return json.loads(found[-1].removeprefix("PARSED "))

    def import_errors(self):
        return self.parsed()["errors"]

    def load(self):
        """Loads the DAGs into the database, as the scheduler does at intervals."""
        self.run("dags", "reserialize")

    def test(self, dag, **options):
        """Runs a whole DAG in one process, with no scheduler."""
        return self.run("dags", "test", dag, **options)

    @contextlib.contextmanager
    def process(self, name, *command):
        """A long-running command, such as `airflow scheduler`; it is stopped with all of its
        children.
        """
        log = self.folder / f"{name}.log"
        command = command or (self.venv / "bin" / "airflow", name)
        with open(log, "wb") as out:
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            yield process, log
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextlib.contextmanager
    def api(self):
        """A running API server."""
        root = f"http://127.0.0.1:{self.port}"
        url = f"{root}/api/v1" if self.is_2 else f"{root}/api/v2"
        command = (
            ("webserver", self.venv / "bin" / "python", "-c", SERVE, self.port)
            if self.is_2
            else ("api-server",)
        )
        with self.process(*command) as (process, log):

            def answers():
                assert process.poll() is None, log.read_text()[-5000:]
                try:
                    return requests.get(f"{url}/version", timeout=5).status_code == 200
                except requests.ConnectionError:
                    return False

            wait_until(answers, "Airflow's API to answer", 90)
            headers = (
                {}
                if self.is_2
                else {
                    "Authorization": (
                        "Bearer "
                        f"{requests.get(f'{root}/auth/token', timeout=30).json()['access_token']}"
                    )
                }
            )
            yield Api(url, headers)

    @contextlib.contextmanager
    def scheduler(self):
        """The scheduler, which runs DAGs; in Airflow 3 its tasks require `api` too."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.process("scheduler"))
            if not self.is_2:
                stack.enter_context(self.process("dag-processor"))
            yield

    def wait_for_run(self, api, dag, run, seconds=180):
        """Waits for a run of a DAG to end, and returns it."""
        end = time.time() + seconds
        while time.time() < end:
            status, found = api.request("GET", f"/dags/{dag}/dagRuns/{run}")
            if status == 200 and found["state"] in ("success", "failed"):
                return found
            time.sleep(0.5)
        logs = "\n".join(
            f"{log.name}: {log.read_text()[-1500:]}" for log in self.folder.glob("*.log")
        )
        raise AssertionError(f"not within {seconds} s: {found}\n{logs}")

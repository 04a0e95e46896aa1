"""One-time runs and their states, as the Jobs API returns them."""

import re
import threading
import time
import traceback

from .cluster import Broken, Job
from .errors import invalid, missing

WORKLOAD_FAILED = "Workload failed, see run output for details"


def milliseconds():
    return int(time.time() * 1000)


class Run:
    """A run of one task."""

    def __init__(self, number, body, databricks):
        self.id, self.task_id, self.job_id = number, number + 1, number + 2
        self.body, self.databricks = body, databricks
        self.task = body["tasks"][0]
        self.cluster_id = (
            self.task.get("existing_cluster_id") or f"1121-{number % 1_000_000:06}-c{number:07x}"
        )
        self.started, self.ended = milliseconds(), 0
        self.life_cycle, self.result, self.message = "PENDING", None, "Waiting for cluster"
        self.task_life_cycle, self.task_message = None, None
        self.code, self.kind = None, None
        self.output = {}
        self.job = None
        self.cancelled = threading.Event()
        self.timed_out = False
        self.thread = threading.Thread(target=self.work, daemon=True)

    @property
    def terminal(self):
        return self.result is not None

    def finish(self, task_life_cycle, result, task_message, code, kind):
        """Ends the run.

        A failed task is an internal error of the run in the older states of Databricks.
        """
        self.ended = milliseconds()
        self.task_life_cycle, self.task_message, self.code, self.kind = (
            task_life_cycle,
            task_message,
            code,
            kind,
        )
        self.message, self.life_cycle = task_message, "TERMINATED"
        if result == "FAILED":
            self.message, self.life_cycle = (
                f"Task {self.task['task_key']} failed with message: {task_message.rstrip('.')}.",
                "INTERNAL_ERROR",
            )
        self.result = result

    def wait(self, seconds):
        """Waits; returns whether the run continues."""
        limit = self.body.get("timeout_seconds") or 0
        until = time.time() + seconds
        while time.time() < until:
            if limit and milliseconds() > self.started + limit * 1000:
                self.timed_out = True
            if self.cancelled.is_set() or self.timed_out:
                return False
            time.sleep(0.02)
        return not self.cancelled.is_set()

    def work(self):
        try:
            self.run()
        except Broken as broken:
            message = (
                f"Unexpected failure while waiting for the cluster ({self.cluster_id}) to "
                f"be ready: Cluster {self.cluster_id} is in unexpected state Terminated: "
                f"{broken.code}({broken.kind}): databricks_error_message:{broken}"
            )
            self.output = {"error": message}
            self.finish(
                "INTERNAL_ERROR",
                "FAILED",
                message,
                "CLUSTER_ERROR",
                "CLOUD_FAILURE" if broken.kind == "CLOUD_FAILURE" else "CLIENT_ERROR",
            )
        except Exception as error:
            # An error of the double itself must not look like a response.
            self.databricks.violations.append(f"run {self.id}: {traceback.format_exc()}")
            self.finish(
                "INTERNAL_ERROR",
                "FAILED",
                f"the stand-in failed: {error}",
                "INTERNAL_ERROR",
                "INTERNAL_ERROR",
            )

    def run(self):
        clusters = self.databricks.clusters
        goes_on = self.wait(
            float("inf") if clusters.seconds_to_start is None else clusters.seconds_to_start
        )
        if goes_on:
            values = {
                "job.run_id": self.id,
                "job.id": self.job_id,
                "task.run_id": self.task_id,
                "task.name": self.task["task_key"],
            }

            def value(found):
                return str(values.get(found[1], found[0]))

            arguments = [
                re.sub(r"\{\{([\w.]+)\}\}", value, given)
                for given in self.task["spark_python_task"].get("parameters", [])
            ]
            self.job = Job(clusters, str(self.id), self.databricks.workspace, self.task, arguments)
            self.life_cycle, self.message = "RUNNING", "In run"
            if self.job.start():
                while goes_on and not self.job.ended():
                    goes_on = self.wait(0.05)
                self.job.kill()
            outcome = self.job.finish()
            self.output = {"logs": self.job.log("stdout"), "logs_truncated": False}
        if not goes_on:
            self.life_cycle, self.message = "TERMINATING", "Cancelling the run"
            time.sleep(self.databricks.seconds_to_end)
            self.output = {}
            if self.timed_out:
                self.finish("TERMINATED", "TIMEDOUT", "Run timed out.", "CANCELED", "CLIENT_ERROR")
            else:
                self.finish("TERMINATED", "CANCELED", "Run cancelled.", "USER_CANCELED", "SUCCESS")
            return
        self.life_cycle, self.message = "TERMINATING", "Terminating the cluster"
        time.sleep(self.databricks.seconds_to_end)
        if outcome.get("stopped"):
            self.databricks.violations.append(
                f"run {self.id}: the job stopped the Spark session, which is the cluster's"
            )
        if "error" in outcome:
            self.output.update({"error": outcome["error"], "error_trace": outcome["trace"]})
            self.finish(
                "TERMINATED", "FAILED", WORKLOAD_FAILED, "RUN_EXECUTION_ERROR", "CLIENT_ERROR"
            )
        else:
            self.finish("TERMINATED", "SUCCESS", "", "SUCCESS", "SUCCESS")

    def state(self, life_cycle, message):
        shown = {
            "life_cycle_state": life_cycle,
            "state_message": message,
            "user_cancelled_or_timedout": self.result in ("CANCELED", "TIMEDOUT"),
        }
        if self.terminal:
            shown["result_state"] = self.result
        status = {"state": "TERMINATED" if self.terminal else life_cycle}
        if self.terminal:
            status["termination_details"] = {
                "code": self.code,
                "type": self.kind,
                "message": message,
            }
        return {"state": shown, "status": status}

    def times(self):
        return {
            "start_time": self.started,
            "end_time": self.ended,
            "run_duration": (self.ended or milliseconds()) - self.started,
            "setup_duration": 0,
            "execution_duration": 0,
            "cleanup_duration": 0,
        }

    def page(self, number):
        return f"{self.databricks.url}/?o={self.databricks.organisation}#job/{self.job_id}/run/{number}"  # noqa: E501

    def shown_task(self):
        life_cycle = self.task_life_cycle or self.life_cycle
        given = {
            name: self.task[name]
            for name in ("task_key", "spark_python_task", "new_cluster", "existing_cluster_id")
            if name in self.task
        }
        found = {
            **given,
            "run_id": self.task_id,
            "attempt_number": 0,
            "run_page_url": self.page(self.task_id),
            **self.times(),
            **self.state(
                life_cycle, self.message if self.task_message is None else self.task_message
            ),
        }
        if self.job:
            found["cluster_instance"] = {
                "cluster_id": self.cluster_id,
                "spark_context_id": str(self.task_id),
            }
        return found

    def shown(self):
        return {
            "run_id": self.id,
            "job_id": self.job_id,
            "number_in_job": self.id,
            "creator_user_name": self.databricks.user,
            "run_name": self.body.get("run_name", "Untitled"),
            "run_type": "SUBMIT_RUN",
            "run_page_url": self.page(self.id),
            **self.times(),
            **self.state(self.life_cycle, self.message),
            "tasks": [self.shown_task()],
        }


class Runs:
    """All runs of a workspace."""

    def __init__(self, databricks):
        self.databricks = databricks
        self.by_id = {}
        self.by_token = {}
        self.lock = threading.Lock()
        self.next = 300_000_000_000_001

    def submit(self, **body):
        if len(body["tasks"]) > 1 or "spark_python_task" not in body["tasks"][0]:
            raise invalid("The stand-in runs one task, a spark_python_task")
        existing = body["tasks"][0].get("existing_cluster_id")
        if existing and existing not in self.databricks.clusters.existing:
            raise invalid(f"Cluster {existing} does not exist")
        with self.lock:
            token = body.get("idempotency_token")
            if token and token in self.by_token:
                return {"run_id": self.by_token[token].id}
            run = Run(self.next, body, self.databricks)
            self.next += 1000
            self.by_id[run.id] = run
            if token:
                self.by_token[token] = run
        run.thread.start()
        return {"run_id": run.id}

    def find(self, run_id):
        if run_id not in self.by_id:
            raise invalid(f"Run {run_id} does not exist.")
        return self.by_id[run_id]

    def get(self, run_id, **_):
        # The run of a task can be read as well.
        for run in self.by_id.values():
            if run.task_id == run_id:
                return {**run.shown(), **run.shown_task(), "tasks": [run.shown_task()]}
        return self.find(run_id).shown()

    def get_output(self, run_id):
        for run in self.by_id.values():
            if run.task_id == run_id:
                task = run.shown_task()
                return {
                    **run.output,
                    "metadata": {
                        **run.shown(),
                        **{
                            name: task[name]
                            for name in ("run_id", "state", "status", "run_page_url")
                        },
                    },
                }
        self.find(run_id)
        raise invalid(
            "Retrieving the output of runs with multiple tasks is not supported. "
            "Please retrieve the output of each individual task run instead."
        )

    def cancel(self, run_id):
        self.find(run_id).cancelled.set()
        return {}

    def delete(self, run_id):
        if not self.find(run_id).terminal:
            raise invalid(f"Cannot delete an active run {run_id}")
        run = self.by_id.pop(run_id)
        self.by_token = {token: other for token, other in self.by_token.items() if other is not run}
        return {}

    def list(self, active_only=False, completed_only=False, **_):
        chosen = [
            run
            for run in self.by_id.values()
            if not (active_only and run.terminal) and not (completed_only and not run.terminal)
        ]
        return (
            {
                "runs": [
                    {name: value for name, value in run.shown().items() if name != "tasks"}
                    for run in reversed(chosen)
                ],
                "has_more": False,
            }
            if chosen
            else {"has_more": False}
        )

    def cluster(self, cluster_id):
        if cluster_id in self.databricks.clusters.existing:
            return {
                "cluster_id": cluster_id,
                "state": "RUNNING",
                "cluster_source": "UI",
                **self.databricks.clusters.existing[cluster_id],
            }
        for run in self.by_id.values():
            if run.cluster_id == cluster_id:
                return {
                    "cluster_id": cluster_id,
                    "state": "TERMINATED" if run.terminal else "RUNNING",
                    "cluster_source": "JOB",
                    **run.task["new_cluster"],
                }
        raise missing(f"Cluster {cluster_id} does not exist")

    def stop(self):
        """Stops the runs that have not ended."""
        for run in self.by_id.values():
            run.cancelled.set()
        for run in self.by_id.values():
            run.thread.join(timeout=10)

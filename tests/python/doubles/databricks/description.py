"""Validates a request by the description of the API that Databricks' official client contains.

The methods and dataclasses of the client are generated from Databricks' OpenAPI document: a method
accepts what its endpoint accepts. Rules that the document only describes in words are in
`check_run`.
"""

import dataclasses
import enum
import functools
import inspect
import re
import typing

from databricks.sdk.service import compute, iam, jobs, workspace

# Method and path below /api/2.x; what describes it; the versions of the API that have it.
JOBS = ("2.1", "2.2")
ENDPOINTS = {
    ("GET", "preview/scim/v2/Me"): (iam.CurrentUserAPI.me, ("2.0",)),
    ("POST", "workspace/mkdirs"): (workspace.WorkspaceAPI.mkdirs, ("2.0",)),
    ("POST", "workspace/import"): (workspace.WorkspaceAPI.import_, ("2.0",)),
    ("POST", "workspace/delete"): (workspace.WorkspaceAPI.delete, ("2.0",)),
    ("GET", "workspace/get-status"): (workspace.WorkspaceAPI.get_status, ("2.0",)),
    ("GET", "workspace/list"): (workspace.WorkspaceAPI.list, ("2.0",)),
    ("GET", "workspace/export"): (workspace.WorkspaceAPI.export, ("2.0",)),
    ("GET", "secrets/scopes/list"): (workspace.SecretsAPI.list_scopes, ("2.0",)),
    ("GET", "secrets/list"): (workspace.SecretsAPI.list_secrets, ("2.0",)),
    ("POST", "secrets/scopes/create"): (workspace.SecretsAPI.create_scope, ("2.0",)),
    ("POST", "secrets/put"): (workspace.SecretsAPI.put_secret, ("2.0",)),
    ("GET", "clusters/get"): (compute.ClustersAPI.get, ("2.0", "2.1")),
    ("GET", "clusters/list-node-types"): (compute.ClustersAPI.list_node_types, ("2.0", "2.1")),
    ("GET", "clusters/spark-versions"): (compute.ClustersAPI.spark_versions, ("2.0", "2.1")),
    ("POST", "jobs/runs/submit"): (jobs.JobsAPI.submit, JOBS),
    ("GET", "jobs/runs/get"): (jobs.JobsAPI.get_run, JOBS),
    ("GET", "jobs/runs/get-output"): (jobs.JobsAPI.get_run_output, JOBS),
    ("POST", "jobs/runs/cancel"): (jobs.JobsAPI.cancel_run, JOBS),
    ("GET", "jobs/runs/list"): (jobs.JobsAPI.list_runs, JOBS),
    ("POST", "jobs/runs/delete"): (jobs.JobsAPI.delete_run, JOBS),
}
# Parameters that the client sends but the document does not list: raw downloads.
BESIDE = {"workspace/export": {"direct_download": bool}}
IMPORT_LIMIT = 10 * 1024 * 1024
PARAMETERS_LIMIT = 10_000


def shown(value):
    text = repr(value)
    return text if len(text) < 120 else f"{text[:117]}..."


@functools.cache
def members_of_method(method):
    """Returns type and whether it is required of each member that a method sends."""
    hints, source = typing.get_type_hints(method), inspect.getsource(method)
    names = {
        own: wire
        for own, wire in re.findall(
            r"if (\w+) is not None:\s+(?:body|query)\[\"([^\"]+)\"\]", source
        )
    }
    found = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if name in names:
            found[names[name]] = (hints[name], parameter.default is inspect.Parameter.empty)
    return found


@functools.cache
def members_of_class(cls):
    """Returns the same of a dataclass."""
    hints, source = typing.get_type_hints(cls), inspect.getsource(cls.as_dict)
    names = dict(re.findall(r"if self\.(\w+)(?: is not None)?:\s+body\[\"([^\"]+)\"\]", source))
    return {
        names.get(field.name, field.name): (
            hints[field.name],
            field.default is field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cls)
    }


def inner_of(wanted):
    """Returns the type inside Optional."""
    return (
        next((a for a in typing.get_args(wanted) if a is not type(None)), wanted)
        if typing.get_origin(wanted) is typing.Union
        else wanted
    )


def numbered(wanted, value):
    """Returns a value with numbers for text: Airflow sends text, and Databricks accepts it."""
    wanted = inner_of(wanted)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is list and isinstance(value, list):
        return [numbered(arguments[0], item) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: numbered(arguments[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(wanted) and isinstance(value, dict):
        return numbered_members(members_of_class(wanted), value)
    return (
        int(value)
        if wanted is int and isinstance(value, str) and re.fullmatch(r"-?\d+", value)
        else value
    )


def numbered_members(members, value):
    return {
        name: numbered(members[name][0], item) if name in members else item
        for name, item in value.items()
    }


def check_members(members, value, path):
    for name, (_, required) in members.items():
        if required and value.get(name) is None:
            yield f"{path}{name}: required, and missing"
    for name, item in value.items():
        if name not in members:
            yield f"{path}{name}: unknown member"
        elif item is not None:
            yield from check_value(members[name][0], item, f"{path}{name}")


def check_value(wanted, value, path):
    """Returns problems of a JSON value that should have a Python type."""
    wanted = inner_of(wanted)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is list:
        if not isinstance(value, list):
            yield f"{path}: a list is wanted, not {shown(value)}"
            return
        for index, item in enumerate(value):
            yield from check_value(arguments[0], item, f"{path}[{index}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{path}: an object is wanted, not {shown(value)}"
            return
        for key, item in value.items():
            yield from check_value(arguments[1], item, f"{path}[{key!r}]")
    elif dataclasses.is_dataclass(wanted):
        if isinstance(value, dict):
            yield from check_members(members_of_class(wanted), value, f"{path}.")
        else:
            yield f"{path}: an object is wanted, not {shown(value)}"
    elif isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        if value not in [member.value for member in wanted]:
            yield f"{path}: {shown(value)} is none of {[member.value for member in wanted]}"
    elif wanted in (str, int, bool):
        # In Python, a boolean is a number.
        if type(value) is not wanted:
            yield f"{path}: {wanted.__name__} is wanted, not {shown(value)}"
    elif wanted is float and (isinstance(value, bool) or not isinstance(value, (int, float))):
        yield f"{path}: a number is wanted, not {shown(value)}"


def check_query(members, query):
    """Returns the same for a query string, where every value is text."""
    parsed = {}
    for name, values in query.items():
        if len(values) > 1:
            yield f"{name}: sent {len(values)} times"
        wanted = inner_of(members.get(name, (str,))[0])
        parsed[name] = values[0]
        if wanted is int and re.fullmatch(r"-?\d+", values[0]):
            parsed[name] = int(values[0])
        elif wanted is bool and values[0].lower() in ("true", "false"):
            parsed[name] = values[0].lower() == "true"
    yield from check_members(members, parsed, "")


def check_cluster(cluster, path):
    """Returns violations of rules in the descriptions of a new cluster's members."""
    if not cluster.get("spark_version"):
        yield f"{path}.spark_version: required, and missing"
    elif not re.fullmatch(
        r"(\d+\.(\d+|x)|custom|auto|apache|dlt)[\w.:@-]*", cluster["spark_version"]
    ):
        yield (
            f"{path}.spark_version: {shown(cluster['spark_version'])} is no version "
            "such as 16.4.x-scala2.12"
        )
    if not any(
        cluster.get(name)
        for name in ("node_type_id", "instance_pool_id", "policy_id", "node_type_flexibility")
    ):
        yield f"{path}: node_type_id or instance_pool_id is required"
    if cluster.get("instance_pool_id") and cluster.get("node_type_id"):
        yield f"{path}: node_type_id and instance_pool_id exclude each other"
    if ("num_workers" in cluster) + ("autoscale" in cluster) == 2:
        yield f"{path}: num_workers and autoscale exclude each other"
    elif (
        cluster.get("num_workers", 0) == 0
        and "autoscale" not in cluster
        and not cluster.get("is_single_node")
    ):
        conf = cluster.get("spark_conf", {})
        if conf.get("spark.databricks.cluster.profile") != "singleNode" or not conf.get(
            "spark.master", ""
        ).startswith("local["):
            yield (
                f"{path}: no workers need is_single_node, or "
                "spark.databricks.cluster.profile=singleNode and spark.master=local[*]"
            )
        elif cluster.get("custom_tags", {}).get("ResourceClass") != "SingleNode":
            yield f"{path}: a single node needs the tag ResourceClass=SingleNode"
    if cluster.get("is_single_node") and cluster.get("kind") != "CLASSIC_PREVIEW":
        yield f"{path}.is_single_node: can only be used when kind = CLASSIC_PREVIEW"
    profile = cluster.get("aws_attributes", {}).get("instance_profile_arn")
    if profile is not None and not re.fullmatch(
        r"arn:aws[\w-]*:iam::\d{12}:instance-profile/[\w+=,.@/-]+", profile
    ):
        yield f"{path}.aws_attributes.instance_profile_arn: {shown(profile)} is no instance profile"


def check_run(body):
    """Returns violations of rules in the descriptions of a one-time run's members."""
    tasks = body.get("tasks") or []
    if not 1 <= len(tasks) <= 100:
        yield f"tasks: 1 to 100 are wanted, not {len(tasks)}"
    if len(body.get("idempotency_token") or "") > 64:
        yield "idempotency_token: at most 64 characters"
    if (body.get("timeout_seconds") or 0) < 0:
        yield "timeout_seconds: must not be negative"
    keys = [task.get("task_key") for task in tasks]
    if len(set(keys)) != len(keys):
        yield f"tasks: the keys {keys} are not unique"
    for task in tasks:
        here = f"tasks[{task.get('task_key')}]"
        if not re.fullmatch(r"[\w-]{1,100}", task.get("task_key", "")):
            yield f"{here}.task_key: 1 to 100 letters, digits, - and _ are wanted"
        if len([name for name in task if name.endswith("_task")]) != 1:
            yield f"{here}: exactly one kind of task must be given"
        compute_given = [
            name
            for name in ("new_cluster", "existing_cluster_id", "environment_key", "compute")
            if task.get(name)
        ]
        if len(compute_given) != 1:
            yield (
                f"{here}: exactly one of new_cluster, existing_cluster_id and "
                f"environment_key must be given, not {compute_given}"
            )
        if task.get("new_cluster"):
            yield from check_cluster(task["new_cluster"], f"{here}.new_cluster")
        script = task.get("spark_python_task") or {}
        file = script.get("python_file", "/")
        if script.get("source") != "GIT" and not (
            file.startswith("/") or re.match(r"(dbfs|s3a?|abfss|gs|adl):/", file)
        ):
            yield (
                f"{here}.spark_python_task.python_file: {shown(file)} must begin with / or be a URI"
            )
        if len(str(script.get("parameters", []))) > PARAMETERS_LIMIT:
            yield f"{here}.spark_python_task.parameters: more than 10,000 bytes"


def members_of(method, path):
    """Returns the members that an endpoint accepts."""
    return {
        **members_of_method(ENDPOINTS[method, path][0]),
        **{name: (wanted, False) for name, wanted in BESIDE.get(path, {}).items()},
    }


def problems_of(method, version, path, query, body):
    """Returns all problems of a request whose endpoint is known."""
    if version not in ENDPOINTS[method, path][1]:
        return [f"{path} is not in version {version} of the API"]
    members = members_of(method, path)
    if method == "GET":
        return list(check_query(members, query))
    if not isinstance(body, dict):
        return [f"body: a JSON object is wanted, not {shown(body)}"]
    found = [f"query string {name}: unknown member" for name in query] + list(
        check_members(members, body, "")
    )
    # Rules about values only make sense once their types are right.
    if path == "jobs/runs/submit" and not found:
        found += check_run(body)
    return found

"""The Kafka Connect REST API of the local stack."""

import pytest
import requests

from support.sink_properties import PROPERTIES


@pytest.fixture
def call(local):
    def send(method, path, body=None):
        return requests.request(method, f"http://{local.control}{path}", json=body, timeout=20)

    return send


def test_connectors_are_expanded_with_their_tasks(call):
    assert call("POST", "/connectors", {"name": " c ", "config": PROPERTIES}).status_code == 201
    assert call("GET", "/connectors").json() == ["c"]
    expanded = call("GET", "/connectors?expand=info&expand=status").json()
    assert expanded["c"]["info"]["config"] == PROPERTIES
    assert expanded["c"]["status"]["tasks"][0]["state"] == "RUNNING"
    assert list(call("GET", "/connectors?expand=status").json()["c"]) == ["status"]
    assert call("GET", "/connectors/c/tasks").json() == [
        {"id": {"connector": "c", "task": 0}, "config": PROPERTIES}
    ]
    assert call("GET", "/connectors/c/tasks/0/status").json()["state"] == "RUNNING"
    assert call("GET", "/connectors/c/tasks/1/status").status_code == 404
    assert call("POST", "/connectors/c/tasks/0/restart").status_code == 204
    assert call("GET", "/connector-plugins").json()[0]["class"] == PROPERTIES["connector.class"]


@pytest.mark.parametrize(
    ("name", "config_name"), [("", None), ("  ", None), ("a\0b", None), ("a\nb", None), ("a", "b")]
)
def test_invalid_names_are_refused(call, name, config_name):
    config = PROPERTIES | ({"name": config_name} if config_name else {})
    answer = call("POST", "/connectors", {"name": name, "config": config})
    assert (answer.status_code, answer.json()["error_code"]) == (400, 400), answer.text
    assert call("GET", "/connectors").json() == []


def test_name_in_the_properties_must_equal_the_name_in_the_path(call):
    answer = call("PUT", "/connectors/a/config", PROPERTIES | {"name": "b"})
    assert answer.status_code == 400 and "(b)" in answer.json()["message"], answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/connectors/none", 404),
        ("GET", "/admin/loggers", 404),
        ("PUT", "/connectors/none/stop", 404),
        ("PATCH", "/connectors", 405),
    ],
)
def test_missing_objects_return_a_json_error(call, method, path, status):
    answer = call(method, path)
    assert (answer.status_code, answer.json()["error_code"]) == (status, status), answer.text

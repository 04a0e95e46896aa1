"""The Spark job alone: which objects and records it reads."""

import json

import pytest

from support.spark_job import run_jobs

pytestmark = pytest.mark.java

GEO = {
    "ind": 1,
    "timestamp": "2020-05-01 10:00:00",
    "latitude": 1.5,
    "longitude": 2.5,
    "country": "Peru",
}
TOPIC = "topics/local.geo/partition=0"

# Characters that a pattern of Hadoop, a list of paths or a URL contains.
PATTERN = "a[1]{b,c}*?\\d%20e"
# Lakes: the name of the folder, and the content of each object.
LAKES = {
    PATTERN: {f"{TOPIC}/local.geo+0+0000000000.json": json.dumps(GEO).encode()},
    "empty": {},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The outcome of the job over each lake."""
    folder = tmp_path_factory.mktemp("spark_records")
    jobs = {}
    for name, objects in LAKES.items():
        lake = folder / name
        lake.mkdir()
        for path, content in objects.items():
            (lake / path).parent.mkdir(parents=True, exist_ok=True)
            (lake / path).write_bytes(content)
        jobs[name] = (lake, "geo", {})
    return run_jobs(folder, jobs)


def test_the_folder_of_the_lake_is_not_a_pattern(outcomes):
    assert outcomes[PATTERN].counts == (1, 0, 0, 1)


def test_a_lake_without_records_is_an_error(outcomes):
    assert "cannot read the lake: Spark found no records in" in outcomes["empty"].error

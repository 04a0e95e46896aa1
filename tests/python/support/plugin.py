"""The order of the tests: the slowest files run first, so that parallel workers finish at about the
same time.
"""

from support.paths import TESTS

# Files by their duration on two cores, longest first. The others follow in pytest's default order.
LONGEST_FIRST = (
    "provision/test_crash.py",
    "schedule/test_schedule.py",
    "doubles_selftest/test_ministack.py",
    "provision/test_faults.py",
    "schedule/test_drift.py",
    "provision/test_interrupt.py",
    "batch/test_memory.py",
    "schedule/test_airflow_setup.py",
    "provision/test_topics.py",
    "provision/test_airflow_faults.py",
    "batch/test_spark.py",
    "batch/test_spark_records.py",
    "schedule/test_databricks.py",
    "doubles_selftest/test_databricks.py",
    "provision/test_update.py",
    "provision/test_security.py",
    "provision/test_drift.py",
    "local/test_crash.py",
    "pipeline/test_databases.py",
    "pipeline/test_golden.py",
    "provision/test_replace.py",
    "provision/test_moved_vpc.py",
    "pipeline/test_end_to_end.py",
    "provision/test_wait.py",
    "pipeline/test_bad_input.py",
    "provision/test_state.py",
    "pipeline/test_s3.py",
    "pipeline/test_data_safety.py",
)


def pytest_collection_modifyitems(items):
    missing = [name for name in LONGEST_FIRST if not (TESTS / name).is_file()]
    assert not missing, f"the order names files that do not exist: {missing}"
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))

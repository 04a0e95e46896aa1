"""Questions of the user: each is one SELECT, and an error names file, line and column."""

import pytest

from support.lakes import KINDS, write_lake

WRITES = {
    "insert": "INSERT INTO clean_pin SELECT * FROM clean_pin",
    "copy": "COPY clean_pin TO 'copied.csv'",
    "drop": "DROP TABLE clean_pin",
    "create": "CREATE TABLE more AS SELECT 1 AS n",
    "external": "CREATE EXTERNAL TABLE more STORED AS PARQUET LOCATION 'lake'",
    "set": "SET datafusion.execution.batch_size = 1",
    "two": "SELECT 1 AS n; DROP TABLE clean_pin",
    "into": "SELECT ind INTO more FROM clean_pin",
    "cte": "WITH more AS (INSERT INTO clean_pin SELECT * FROM clean_pin) SELECT 1 AS n",
}


@pytest.fixture
def asked(pinpipe):
    """Returns a function that runs batch with a question and returns stderr."""
    pinpipe.run("seed", "--posts", 20)
    write_lake(pinpipe.data / "source.db", pinpipe.folder / "lake", 1)
    (pinpipe.folder / "mine").mkdir()
    (pinpipe.folder / "pinpipe.toml").write_text('[batch]\nquestions = "mine"\n')

    def ask(sql, *arguments, code=0):
        (pinpipe.folder / "mine/mine.sql").write_text(sql)
        return pinpipe.run("batch", "--lake", "lake", *arguments, code=code).stderr

    return ask


@pytest.mark.parametrize("engine", ["embedded", "spark"])
@pytest.mark.parametrize("name", WRITES)
def test_question_that_writes_is_refused_before_the_lake_is_read(pinpipe, asked, name, engine):
    stderr = asked(WRITES[name], "--engine", engine, code=2)
    assert "error: cannot use the question mine/mine.sql" in stderr and "hint:" in stderr, stderr
    assert not (pinpipe.data / "tables").exists()
    assert not (pinpipe.folder / "copied.csv").exists()


def test_question_that_inserts_rows_does_not_change_the_table(pinpipe, asked):
    asked("SELECT 1 AS n")
    asked(WRITES["insert"], code=2)
    asked("SELECT count(*) AS n FROM clean_pin")
    rows = {i["kind"]: i["rows"] for i in pinpipe.json("batch", "--lake", "lake")["inputs"]}
    assert rows == dict.fromkeys(KINDS, 20)


@pytest.mark.parametrize(
    ("sql", "place", "cause"),
    [
        ("SELECT country\nFROM pst", "2:6", "`pst` not found"),
        ("SELECT nation FROM post", "1:8", "column `nation` not found"),
        ("SELECT country\nFROM post\nGROUP country", "3:1", "Expected"),
    ],
)
def test_error_of_a_question_names_file_line_and_column(asked, sql, place, cause):
    stderr = asked(sql, code=2 if cause == "Expected" else 1)
    assert f"mine/mine.sql:{place}: " in stderr and cause in stderr, stderr
    assert "datafusion" not in stderr.lower() and "hint:" in stderr, stderr

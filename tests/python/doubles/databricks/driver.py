"""Runs a job as a Databricks driver does: in an existing session.

    spark-submit driver.py INSTRUCTIONS

INSTRUCTIONS is a JSON file with the job's file, its arguments, and the path of the file for the
outcome.
"""

import json
import sys
import traceback


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        instructions = json.load(file)
    outcome = {"stopped": False}
    try:
        from pyspark.sql import SparkSession

        SparkSession.builder.getOrCreate()
        stop = SparkSession.stop

        def noticed(session):
            # The session is shared by the cluster: jobs must never stop it.
            outcome["stopped"] = True
            stop(session)

        SparkSession.stop = noticed
        sys.argv = [instructions["file"], *instructions["arguments"]]
        with open(instructions["file"], encoding="utf-8") as file:
            code = compile(file.read(), instructions["file"], "exec")
        # No __file__: a job on Databricks has none either.
        exec(code, {"__name__": "__main__"})
    except BaseException as error:
        outcome["error"] = f"{type(error).__name__}: {error}"
        outcome["trace"] = traceback.format_exc()
    with open(instructions["outcome"], "w", encoding="utf-8") as file:
        json.dump(outcome, file)
    sys.exit(1 if "error" in outcome else 0)


if __name__ == "__main__":
    main()

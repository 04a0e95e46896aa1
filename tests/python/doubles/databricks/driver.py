"""Runs a job the way a Databricks driver does: inside a session that is there already.

    spark-submit driver.py TOLD

TOLD is a JSON file with the job's file and arguments, and names the file that gets the outcome.
"""

import json
import sys
import traceback


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        told = json.load(file)
    outcome = {"stopped": False}
    try:
        from pyspark.sql import SparkSession

        SparkSession.builder.getOrCreate()
        stop = SparkSession.stop

        def noticed(session):
            # The session is the cluster's, and shared: Databricks asks jobs never to end it.
            outcome["stopped"] = True
            stop(session)

        SparkSession.stop = noticed
        sys.argv = [told["file"], *told["arguments"]]
        with open(told["file"], encoding="utf-8") as file:
            code = compile(file.read(), told["file"], "exec")
        # No __file__: a job has none there either.
        exec(code, {"__name__": "__main__"})
    except BaseException as error:
        outcome["error"] = f"{type(error).__name__}: {error}"
        outcome["trace"] = traceback.format_exc()
    with open(told["outcome"], "w", encoding="utf-8") as file:
        json.dump(outcome, file)
    sys.exit(1 if "error" in outcome else 0)


if __name__ == "__main__":
    main()

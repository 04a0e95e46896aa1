"""`provision --plan --out FILE` and `provision --apply FILE` on the local stack."""

import json


def test_saved_plan_is_applied_and_then_out_of_date(provisioned):
    pinpipe = provisioned.pinpipe
    pinpipe.run("topics", "delete", "--yes", "local.geo")
    planned = pinpipe.json("provision", "--plan", "--out", "plan.json")
    assert json.loads((pinpipe.folder / "plan.json").read_text()) == planned
    assert planned["tally"]["create"] == 1 and planned["format_version"] == 1
    applied = pinpipe.json("provision", "--apply", "plan.json")
    assert applied["applied"] and applied["tally"]["create"] == 1
    stderr = pinpipe.run("provision", "--apply", "plan.json", code=1).stderr
    assert "the plan is out of date" in stderr or "it is out of date" in stderr
    assert "topic-geo: create local.geo (does not exist) → no change local.geo" in stderr


def test_plan_of_another_configuration_is_refused(provisioned):
    pinpipe = provisioned.pinpipe
    pinpipe.run("provision", "--plan", "--out", "plan.json")
    changed = {"PINPIPE__TOPICS__PARTITIONS": "4"}
    stderr = pinpipe.run("provision", "--apply", "plan.json", env=changed, code=1).stderr
    assert "the configuration has changed" in stderr and "hint: " in stderr


def test_file_that_is_not_a_plan_is_rejected(provisioned):
    pinpipe = provisioned.pinpipe
    (pinpipe.folder / "other.json").write_text("{}")
    stderr = pinpipe.run("provision", "--apply", "other.json", code=2).stderr
    assert "expected format version 1, got none" in stderr
    stderr = pinpipe.run("provision", "--apply", "missing.json", code=2).stderr
    assert "plan file `missing.json` does not exist" in stderr


def test_errors_are_json_with_output_json(provisioned):
    done = provisioned.pinpipe.run("topics", "describe", "nope", "--output", "json", code=1)
    error = json.loads(done.stderr)
    assert done.stdout == "" and error["exit_code"] == 1
    assert "`nope` does not exist" in error["error"] and "pinpipe topics" in error["hint"]

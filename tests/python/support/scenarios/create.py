"""Creation and deletion of a whole pipeline."""


def creates_everything_then_plans_nothing(cloud):
    planned = cloud.plan()
    assert {action for action, _ in planned.values()} == {"create"} and len(planned) == 26
    assert not cloud.aws.snapshot().get("clusters")
    applied = cloud.apply()
    assert (
        applied["applied"] and len([s for s in applied["steps"] if s["action"] == "create"]) == 26
    )
    assert cloud.plan() == {}
    again = cloud.apply()
    assert [s["action"] for s in again["steps"] if s["action"] != "no-op"] == []


def destroys_everything_and_succeeds_again(cloud):
    before = cloud.aws.snapshot()
    cloud.apply()
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before
    cloud.run("destroy", "--yes")

"""Secrets of a pipeline."""


def destroy_deletes_the_secrets(empty):
    empty.apply()
    empty.run("destroy", "--yes")
    assert not list(empty.data.rglob("*.pem*")) and empty.aws.snapshot()["parameters"] == []

"""Renamed resources: configuration sections that rename all of them, and reasons in the plan."""

TOPICS = dict.fromkeys(
    ("topic-pin", "topic-geo", "topic-user"), ("replace", "`cluster` is replaced")
)


NAMED = "was created under another name, "


EVERY_NAME = {
    "cluster": {"name": "other"},
    "connector": {"name": "other", "plugin_name": "other", "worker_name": "other"},
    "api": {"name": "other"},
    "connector__properties": {"s3.bucket.name": "other-bucket"},
}

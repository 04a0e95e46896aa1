"""Objects of a lake that are replaced, deleted and added between runs of batch."""

import json
import os

import boto3

from support.scenarios.s3 import KEYS

PIN = {
    "index": 1,
    "unique_id": "u1",
    "title": "t",
    "description": "d",
    "poster_name": "n",
    "follower_count": "46k",
    "tag_list": "a,b",
    "is_image_or_video": "image",
    "image_src": "s",
    "downloaded": 1,
    "save_location": "Local save in /data/art",
    "category": "art",
}
GEO = {
    "ind": 1,
    "timestamp": "2020-05-01 10:00:00",
    "latitude": 1.5,
    "longitude": 2.5,
    "country": "Peru",
}
USER = {
    "ind": 1,
    "first_name": "Ada",
    "last_name": "Lee",
    "age": 30,
    "date_joined": "2016-01-02 03:04:05",
}


class FolderLake:
    """A lake in a folder."""

    def __init__(self, folder):
        self.folder, self.url, self.env = folder, str(folder), {}

    def put(self, key, record, written=None):
        """Writes one record; `written` is a modification time in seconds since 1970."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record) + "\n")
        if written is not None:
            os.utime(path, (written, written))
        return path

    def delete(self, key):
        (self.folder / key).unlink()


class BucketLake:
    """A lake in a bucket of an S3 server, below a prefix."""

    def __init__(self, server, bucket="user-local-bucket", prefix=""):
        self.client = boto3.client(
            "s3",
            endpoint_url=server,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        self.client.create_bucket(Bucket=bucket)
        self.bucket, self.prefix = bucket, prefix
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.env = {"PINPIPE__LAKE__ENDPOINT_URL": server, **KEYS}

    def put(self, key, record):
        body = (json.dumps(record) + "\n").encode()
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=body)

    def delete(self, key):
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)


def key(kind, offset):
    return f"topics/local.{kind}/partition=0/local.{kind}+0+{offset:010d}.json"


def fill(lake):
    """Writes one record of each kind, at offset 0."""
    for kind, record in (("pin", PIN), ("geo", GEO), ("user", USER)):
        lake.put(key(kind, 0), record)


def batch(pinpipe, lake, *arguments, env=None):
    """Runs batch; returns the counts of each kind, the report and the warnings."""
    env = {**lake.env, **(env or {})}
    done = pinpipe.run("batch", "--lake", lake.url, "--output", "json", *arguments, env=env)
    report = json.loads(done.stdout)
    return {i["kind"]: i for i in report["inputs"]}, report, done.stderr


def nothing_new(pinpipe, lake):
    counts, _, _ = batch(pinpipe, lake)
    return [c["objects"] for c in counts.values()] == [0, 0, 0]


def replaced_object_of_the_same_size_is_read(pinpipe, lake):
    fill(lake)
    counts, _, _ = batch(pinpipe, lake)
    assert [c["objects"] for c in counts.values()] == [1, 1, 1]
    assert nothing_new(pinpipe, lake)
    lake.put(key("geo", 0), {**GEO, "country": "Chad"})
    counts, _, _ = batch(pinpipe, lake)
    # The corrected record is another row: the table keeps the row that it has.
    assert (counts["geo"]["objects"], counts["geo"]["new_rows"], counts["geo"]["rows"]) == (1, 1, 2)
    assert (counts["pin"]["objects"], counts["user"]["objects"]) == (0, 0)
    assert nothing_new(pinpipe, lake)


def deletion_of_equal_size_hides_no_late_object(pinpipe, lake):
    def pin(number):
        return {**PIN, "index": number, "unique_id": f"u{number}"}

    fill(lake)
    lake.put(key("pin", 5), pin(2))
    batch(pinpipe, lake)
    lake.delete(key("pin", 0))
    lake.put(key("pin", 3), pin(3))
    counts, _, _ = batch(pinpipe, lake)
    # The rows of a deleted object are kept.
    assert (counts["pin"]["new_rows"], counts["pin"]["rows"]) == (1, 3)
    assert nothing_new(pinpipe, lake)
    counts, _, _ = batch(pinpipe, lake, "--full")
    assert counts["pin"]["rows"] == 2

"""A lake and tables on a server that speaks S3 (moto)."""

import subprocess
import sys

import boto3
import pytest
import requests
from conftest import LocalStack, free_port, wait_until

KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}


@pytest.fixture
def s3():
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers():
        try:
            return requests.get(url, timeout=2).status_code == 200
        except requests.ConnectionError:
            return False

    wait_until(answers, "moto to start", 60)
    yield url
    server.kill()
    server.wait()


def test_the_whole_way_over_s3(pinpipe, s3, monkeypatch):
    client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    client.create_bucket(Bucket="user-local-bucket")
    (pinpipe.folder / "pinpipe.toml").write_text(
        f'[lake]\nurl = "s3://user-local-bucket"\nendpoint_url = "{s3}"\n[tables]\nurl = "s3://user-local-bucket/tables"\n[connector.properties]\n"rotate.schedule.interval.ms" = 300\n'
    )
    (pinpipe.folder / ".env").write_text("".join(f"{k}={v}\n" for k, v in KEYS.items()))
    local = LocalStack(pinpipe)
    try:
        pinpipe.run("seed", "--posts", 120)
        pinpipe.run("provision")
        assert pinpipe.json("emulate", "--to", "both", "--posts", 120, "--batch", 10)["errors"] == 0

        def lines():
            found = client.get_paginator("list_objects_v2").paginate(Bucket="user-local-bucket", Prefix="topics/").search("Contents[].Key")
            return sum(client.get_object(Bucket="user-local-bucket", Key=key)["Body"].read().count(b"\n") for key in found if key)

        wait_until(lambda: lines() == 360, "360 records on S3", 60)
        report = pinpipe.json("batch")
        assert [i["rows"] for i in report["inputs"]] == [120] * 3 and report["lake"] == "s3://user-local-bucket"
        assert [t["rows"] for t in pinpipe.json("stream", "--available-now")["tables"]] == [120] * 3
        assert [t["rows"] for t in pinpipe.json("stream", "--available-now")["tables"]] == [0] * 3
        assert "✖" not in pinpipe.run("doctor").stdout
    finally:
        local.kill()
    import deltalake

    options = {"AWS_ENDPOINT_URL": s3, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", **KEYS}
    for half in ("batch", "stream"):
        table = deltalake.DeltaTable(f"s3://user-local-bucket/tables/{half}/local_pin_table", storage_options=options)
        assert table.to_pyarrow_table().num_rows == 120


def test_a_bucket_that_is_not_there_is_told(pinpipe, s3):
    env = {"PINPIPE__LAKE__ENDPOINT_URL": s3, **KEYS}
    done = pinpipe.run("batch", "--lake", "s3://nowhere", code=1, env=env)
    assert "nowhere" in done.stderr and "hint:" in done.stderr

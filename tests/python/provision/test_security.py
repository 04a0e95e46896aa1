"""Secrets are only in Parameter Store, in API Gateway and in one file that its owner alone can
read.
"""

import base64
import stat

import pytest

from support.scenarios import security

FILE = "me-key.pem"


SECTIONS = {"aws": {"attempts": 2}}


def parameter(cloud, name):
    return cloud.boto("ssm").get_parameter(Name=f"/pinpipe/me/{name}", WithDecryption=True)[
        "Parameter"
    ]["Value"]


def secrets(cloud):
    """Returns every secret so far, each in the forms in which it could be written."""
    found = {"the secret access key": [SECRET_ACCESS_KEY]}
    for name in [
        each["Name"].rpartition("/")[2]
        for each in cloud.boto("ssm").describe_parameters()["Parameters"]
    ]:
        value = parameter(cloud, name)
        body = [line for line in value.splitlines() if not line.startswith("-----")]
        header = base64.b64encode(f"api-gateway:{value}".encode()).decode()
        forms = (
            [value, header, base64.b64encode(value.encode()).decode()]
            if len(body) == 1
            else [body[3], "".join(body)[70:140], header[60:120]]
        )
        found[f"the parameter {name}"] = forms
    gateway = cloud.boto("apigateway")
    keys = [
        gateway.get_api_key(apiKey=key["id"], includeValue=True)["value"]
        for key in gateway.get_api_keys()["items"]
    ]
    return found | {"the API key": keys}


# A value that appears nowhere by chance.
SECRET_ACCESS_KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
AS_US = {"AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY, "PINPIPE__KAFKA__TIMEOUT_MS": "300"}


def leaks(text, cloud):
    return [
        f"{what}: …{form[:6]}…"
        for what, forms in secrets(cloud).items()
        for form in forms
        if form in text
    ]


def text_of_files(cloud):
    """Returns the text of every file of the data folder but the key file."""
    files = [path for path in cloud.folder.rglob("*") if path.is_file() and path.name != FILE]
    assert (
        cloud.data / "aws" / "state.json" in files and cloud.data / "aws" / "outputs.json" in files
    )
    return "\n".join(path.read_bytes().decode(errors="replace") for path in files)


def output_of(cloud, *arguments, code=0):
    done = cloud.run(*arguments, code=code, env=AS_US)
    return done.stdout + done.stderr


def assert_no_secret(text, cloud):
    assert leaks(text, cloud) == []


@pytest.mark.parametrize(
    "options", [(), ("-vv",), ("-vvv",), ("--output", "json")], ids=["plain", "-vv", "-vvv", "json"]
)
def test_no_secret_is_printed_or_written(empty, options):
    text = output_of(empty, "provision", "--yes", *options)
    assert len(secrets(empty)) == 4 and leaks(
        SECRET_ACCESS_KEY + parameter(empty, "proxy-password"), empty
    ), "else this would hold nothing"
    assert_no_secret(text, empty)
    assert_no_secret(text_of_files(empty), empty)
    for command in (
        ("provision", "--plan"),
        ("status",),
        ("doctor",),
        ("api", "status"),
        ("topics", "list"),
    ):
        assert_no_secret(output_of_any(empty, *command, *options), empty)
    assert_no_secret(text_of_files(empty), empty)
    change_everything(empty)
    text = output_of(empty, "provision", "--plan", *options) + output_of(
        empty, "provision", "--yes", *options
    )
    assert_no_secret(text + text_of_files(empty), empty)


def output_of_any(cloud, *arguments):
    """Returns the output of a command, whatever its exit code."""
    process = cloud.start(*arguments, env=AS_US)
    out, err = process.communicate(timeout=60)
    return out + err


def change_everything(cloud):
    """Causes drift of settings that hold secrets."""
    gateway, api = cloud.boto("apigateway"), cloud.state_value("api")
    proxy = next(
        each["id"]
        for each in gateway.get_resources(restApiId=api, limit=500)["items"]
        if each["path"] == "/{proxy+}"
    )
    patch = {
        "op": "replace",
        "path": "/requestParameters/integration.request.header.Authorization",
        "value": "'Basic bm9ib2R5'",
    }
    gateway.update_integration(
        restApiId=api, resourceId=proxy, httpMethod="ANY", patchOperations=[patch]
    )
    gateway.update_api_key(
        apiKey=cloud.state_value("api-key"),
        patchOperations=[{"op": "replace", "path": "/enabled", "value": "false"}],
    )
    cloud.boto("ssm").delete_parameter(Name="/pinpipe/me/key-pair")


@pytest.mark.parametrize(
    "operation",
    [
        "PutIntegration",
        "PutParameter",
        "ImportKeyPair",
        "RunInstances",
        "GetParameter",
        "CreateApiKey",
        "PutMethod",
        "CreateDeployment",
        "SendCommand",
    ],
)
@pytest.mark.parametrize("fault", ["refused", "broken"])
def test_no_secret_is_in_an_error(empty, operation, fault):
    status, code = (
        (403, "AccessDeniedException") if fault == "refused" else (500, "InternalFailure")
    )
    empty.aws.fail_operation(operation, status=status, code=code, message="no", times=100)
    text = output_of(empty, "provision", "--yes", "-vv", code=1)
    empty.aws.faults.clear()
    assert operation in text or "apigateway:" in text
    empty.apply()
    assert_no_secret(text, empty)
    assert_no_secret(text_of_files(empty), empty)


def test_aws_errors_that_quote_a_secret_are_redacted(empty):
    """The error of AWS quotes the request."""
    empty.apply("--only", "proxy-secret,key-pair")
    header = base64.b64encode(f"api-gateway:{parameter(empty, 'proxy-password')}".encode()).decode()
    empty.aws.fail_operation(
        "PutIntegration",
        status=400,
        code="BadRequestException",
        message=f"Invalid mapping expression specified: 'Basic {header}'",
        times=100,
    )
    text = output_of(empty, "provision", "--yes", code=1)
    empty.aws.faults.clear()
    assert_no_secret(text, empty)


def test_key_file_is_readable_by_its_owner_only(empty):
    empty.apply()
    file = empty.data / "aws" / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o400 and file.read_text() == parameter(
        empty, "key-pair"
    )
    assert [path.name for path in file.parent.glob("*.pem*")] == [FILE]
    before = file.stat()
    empty.boto("ec2").create_tags(
        Resources=[empty.boto("ec2").describe_key_pairs()["KeyPairs"][0]["KeyPairId"]],
        Tags=[{"Key": "pinpipe:resource", "Value": "x"}],
    )
    empty.apply()
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "content",
    [
        "notes of the user\n",
        "",
        "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n",
    ],
    ids=["text", "nothing", "no key"],
)
def test_existing_key_file_is_never_overwritten(empty, content):
    file = empty.data / "aws" / FILE
    file.parent.mkdir(parents=True)
    file.write_text(content)
    file.chmod(0o640)
    text = output_of(empty, "provision", "--yes", "--only", "key-pair", code=1)
    assert "hint: " in text and FILE in text, text
    assert file.read_text() == content and stat.S_IMODE(file.stat().st_mode) == 0o640
    snapshot = empty.aws.snapshot()
    # A foreign file is not stored as the key.
    assert snapshot["key pairs"] == [] and snapshot["parameters"] == []


def test_key_file_that_differs_from_the_parameter_is_left_alone(empty):
    empty.apply("--only", "key-pair")
    kept, file = parameter(empty, "key-pair"), empty.data / "aws" / FILE
    empty.boto("ec2").delete_key_pair(KeyName="me-key")
    file.unlink()
    other = kept.replace(kept.splitlines()[2], kept.splitlines()[3])
    file.write_text(other)
    text = output_of(empty, "provision", "--yes", "--only", "key-pair", code=1)
    assert "hold different keys" in text and "hint: " in text
    assert_no_secret(text, empty)
    assert file.read_text() == other and parameter(empty, "key-pair") == kept


def test_configured_key_file_is_used(empty):
    empty.change(client={"key_file": "keys/mine.pem"})
    empty.apply("--only", "key-pair")
    file = empty.folder / "keys" / "mine.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert empty.plan("--only", "key-pair") == {}


def test_state_file_is_not_writable_by_others(empty):
    """The state holds accounts and addresses; the key is next to it."""
    empty.apply("--only", "key-pair")
    assert (empty.data / "aws" / "state.json").stat().st_mode & 0o022 == 0


def test_destroy_deletes_the_secrets(empty):
    security.destroy_deletes_the_secrets(empty)

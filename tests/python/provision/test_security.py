"""What is secret stays where it belongs: in Parameter Store, in API Gateway and in one file nobody else can read."""

import base64
import stat

import pytest

from support.scenarios import security

FILE = "me-key.pem"


SECTIONS = {"aws": {"attempts": 2}}


def parameter(cloud, name):
    return cloud.boto("ssm").get_parameter(Name=f"/pinpipe/me/{name}", WithDecryption=True)["Parameter"]["Value"]


def secrets(cloud):
    """Everything secret there is by now, each in the forms it could be written in."""
    found = {"the secret access key": [SECRET_ACCESS_KEY]}
    for name in [each["Name"].rpartition("/")[2] for each in cloud.boto("ssm").describe_parameters()["Parameters"]]:
        value = parameter(cloud, name)
        body = [line for line in value.splitlines() if not line.startswith("-----")]
        header = base64.b64encode(f"api-gateway:{value}".encode()).decode()
        forms = [value, header, base64.b64encode(value.encode()).decode()] if len(body) == 1 else [body[3], "".join(body)[70:140], header[60:120]]
        found[f"the parameter {name}"] = forms
    gateway = cloud.boto("apigateway")
    keys = [gateway.get_api_key(apiKey=key["id"], includeValue=True)["value"] for key in gateway.get_api_keys()["items"]]
    return found | {"the API key": keys}


# Not a word that stands anywhere by chance.
SECRET_ACCESS_KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
AS_US = {"AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY, "PINPIPE__KAFKA__TIMEOUT_MS": "300"}


def told(text, cloud):
    return [f"{what}: …{form[:6]}…" for what, forms in secrets(cloud).items() for form in forms if form in text]


def written(cloud):
    """Every file of the data folder but the key's, as text."""
    files = [path for path in cloud.folder.rglob("*") if path.is_file() and path.name != FILE]
    assert cloud.data / "aws" / "state.json" in files and cloud.data / "aws" / "outputs.json" in files
    return "\n".join(path.read_bytes().decode(errors="replace") for path in files)


def said(cloud, *arguments, code=0):
    done = cloud.run(*arguments, code=code, env=AS_US)
    return done.stdout + done.stderr


def check(text, cloud):
    assert told(text, cloud) == []


@pytest.mark.parametrize("options", [(), ("-vv",), ("-vvv",), ("--output", "json")], ids=["plain", "-vv", "-vvv", "json"])
def test_no_secret_is_said_or_written(empty, options):
    text = said(empty, "provision", "--yes", *options)
    assert len(secrets(empty)) == 4 and told(SECRET_ACCESS_KEY + parameter(empty, "proxy-password"), empty), "else this would hold nothing"
    check(text, empty)
    check(written(empty), empty)
    for command in (("provision", "--plan"), ("status",), ("doctor",), ("api", "status"), ("topics", "list")):
        check(run_any(empty, *command, *options), empty)
    check(written(empty), empty)
    change_everything(empty)
    text = said(empty, "provision", "--plan", *options) + said(empty, "provision", "--yes", *options)
    check(text + written(empty), empty)


def run_any(cloud, *arguments):
    """What a command says, however it ends."""
    process = cloud.start(*arguments, env=AS_US)
    out, err = process.communicate(timeout=60)
    return out + err


def change_everything(cloud):
    """So that the plan has differences to name where secrets are."""
    gateway, api = cloud.boto("apigateway"), cloud.known("api")
    proxy = next(each["id"] for each in gateway.get_resources(restApiId=api, limit=500)["items"] if each["path"] == "/{proxy+}")
    patch = {"op": "replace", "path": "/requestParameters/integration.request.header.Authorization", "value": "'Basic bm9ib2R5'"}
    gateway.update_integration(restApiId=api, resourceId=proxy, httpMethod="ANY", patchOperations=[patch])
    gateway.update_api_key(apiKey=cloud.known("api-key"), patchOperations=[{"op": "replace", "path": "/enabled", "value": "false"}])
    cloud.boto("ssm").delete_parameter(Name="/pinpipe/me/key-pair")


@pytest.mark.parametrize("operation", ["PutIntegration", "PutParameter", "ImportKeyPair", "RunInstances", "GetParameter", "CreateApiKey", "PutMethod", "CreateDeployment", "SendCommand"])
@pytest.mark.parametrize("fault", ["refused", "broken"])
def test_no_secret_is_in_an_error(empty, operation, fault):
    status, code = (403, "AccessDeniedException") if fault == "refused" else (500, "InternalFailure")
    empty.aws.fail_operation(operation, status=status, code=code, message="no", times=100)
    text = said(empty, "provision", "--yes", "-vv", code=1)
    empty.aws.faults.clear()
    assert operation in text or "apigateway:" in text
    empty.apply()
    check(text, empty)
    check(written(empty), empty)


def test_the_answers_of_aws_are_not_repeated_where_they_hold_a_secret(empty):
    """An error that quotes what was sent."""
    empty.apply("--only", "proxy-secret,key-pair")
    header = base64.b64encode(f"api-gateway:{parameter(empty, 'proxy-password')}".encode()).decode()
    empty.aws.fail_operation("PutIntegration", status=400, code="BadRequestException", message=f"Invalid mapping expression specified: 'Basic {header}'", times=100)
    text = said(empty, "provision", "--yes", code=1)
    empty.aws.faults.clear()
    check(text, empty)


def test_only_the_owner_reads_the_key_and_nobody_writes_it(empty):
    empty.apply()
    file = empty.data / "aws" / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o400 and file.read_text() == parameter(empty, "key-pair")
    assert [path.name for path in file.parent.glob("*.pem*")] == [FILE]
    before = file.stat()
    empty.boto("ec2").create_tags(Resources=[empty.boto("ec2").describe_key_pairs()["KeyPairs"][0]["KeyPairId"]], Tags=[{"Key": "pinpipe:resource", "Value": "x"}])
    empty.apply()
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("content", ["somebody's notes\n", "", "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n"], ids=["text", "nothing", "no key"])
def test_a_file_that_is_there_already_is_never_overwritten(empty, content):
    file = empty.data / "aws" / FILE
    file.parent.mkdir(parents=True)
    file.write_text(content)
    file.chmod(0o640)
    text = said(empty, "provision", "--yes", "--only", "key-pair", code=1)
    assert "hint: " in text and FILE in text, text
    assert file.read_text() == content and stat.S_IMODE(file.stat().st_mode) == 0o640
    snapshot = empty.aws.snapshot()
    # What is no key of ours is not kept as if it were one.
    assert snapshot["key pairs"] == [] and snapshot["parameters"] == []


def test_a_key_file_that_differs_from_the_kept_key_is_left_alone(empty):
    empty.apply("--only", "key-pair")
    kept, file = parameter(empty, "key-pair"), empty.data / "aws" / FILE
    empty.boto("ec2").delete_key_pair(KeyName="me-key")
    file.unlink()
    other = kept.replace(kept.splitlines()[2], kept.splitlines()[3])
    file.write_text(other)
    text = said(empty, "provision", "--yes", "--only", "key-pair", code=1)
    assert "hold different keys" in text and "hint: " in text
    check(text, empty)
    assert file.read_text() == other and parameter(empty, "key-pair") == kept


def test_a_key_file_of_ones_own_place(empty):
    empty.change(client={"key_file": "keys/mine.pem"})
    empty.apply("--only", "key-pair")
    file = empty.folder / "keys" / "mine.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert empty.plan("--only", "key-pair") == {}


def test_the_folders_of_secrets_are_not_open(empty):
    """State names accounts and addresses; the key lies beside it."""
    empty.apply("--only", "key-pair")
    assert (empty.data / "aws" / "state.json").stat().st_mode & 0o022 == 0


def test_destroy_deletes_the_secrets(empty):
    security.destroy_deletes_the_secrets(empty)

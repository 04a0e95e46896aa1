"""The requests of one apply: rendered scripts, templates and policies (other tests check them), and
secure settings.
"""

import base64
import json
import re
import shutil
import subprocess

import botocore.validate
import pytest

from support import client_machine, templates
from support.client_machine import CLIENT_PROPERTIES, KAFKA, PROXY_PROPERTIES
from support.mapping_template import KINESIS, OPERATIONS, POST, apply
from support.policies import findings
from support.provisioned import shared

GATEWAY_RANGES = {"3.216.135.0/24", "44.206.4.0/22"}
TAGS = {"pinpipe:id": "me", "team": "data"}
# A bucket, a deployment, a stage and an object are tagged by a separate call, or not at all.
MAKES_WITHOUT_TAGS = {
    "s3.CreateBucket",
    "s3.CreateMultipartUpload",
    "apigateway.CreateDeployment",
    "apigateway.CreateResource",
    "apigateway.CreateUsagePlanKey",
    "kafka.CreateTopic",
}
NAMES = {
    "id": "me",
    "airflow": "me-airflow",
    "airflow-bucket": "user-me-airflow",
    "bucket": "user-me-bucket",
    "cluster": "me-cluster",
    "connector": "me-connector",
    "proxy-secret-parameter": "/pinpipe/me/proxy-password",
    "role-arn": "arn:aws:iam::123456789012:role/me-ec2-access-role",
    "shards": "2",
}
ROLES = {
    "me-ec2-access-role": ("ec2_trust", "client"),
    "me-connector-role": ("connector_trust", "connector"),
    "me-kinesis-access-role": ("kinesis_trust", "kinesis"),
    "me-airflow-role": ("airflow_trust", "airflow"),
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """One apply of every resource."""
    with shared(tmp_path_factory, aws__tags={"team": "data"}) as module:
        cloud = module.empty()
        # The double drops large bodies after each call, so they are recorded before it.
        cloud.sent = []
        module.double.before_call = lambda call: cloud.sent.append(
            (call.name, dict(call.parameters))
        )
        subnets = sorted(
            cloud.boto("ec2").describe_subnets()["Subnets"],
            key=lambda subnet: subnet["AvailabilityZone"],
        )
        cloud.change(
            airflow={"enabled": True, "subnets": [subnet["SubnetId"] for subnet in subnets[:2]]},
            schedule={"enabled": False},
        )
        cloud.apply()
        assert not module.double.problems, module.double.problems
        yield cloud


def sent(cloud, name):
    return [given for called, given in cloud.sent if called == name]


def one(cloud, name):
    found = sent(cloud, name)
    assert len(found) == 1, f"{len(found)} of {name}"
    return found[0]


def rendered(name):
    return templates.render(name, **{key.replace("-", "_"): value for key, value in NAMES.items()})


@pytest.fixture
def user_data(cloud):
    return base64.b64decode(one(cloud, "ec2.RunInstances")["UserData"]).decode()


def test_user_data_is_complete_and_holds_no_secret(cloud, user_data):
    assert (
        templates.PLACEHOLDER.findall(user_data) == []
        and user_data.startswith("#!/bin/bash\n")
        and len(user_data.encode()) < 16384
    )
    secrets = [each["Value"] for each in sent(cloud, "ssm.PutParameter")]
    assert len(secrets) == 2 and not [
        secret
        for secret in secrets
        if secret.strip() in user_data
        or secret.splitlines()[-2 if "\n" in secret else 0] in user_data
    ]


def test_user_data_passes_shellcheck(user_data, tmp_path):
    if not shutil.which("shellcheck"):
        pytest.skip("SKIPPED: there is no shellcheck")
    (tmp_path / "user_data.sh").write_text(user_data)
    done = subprocess.run(
        ["shellcheck", "--severity", "style", tmp_path / "user_data.sh"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_user_data_sets_up_a_machine(cloud, user_data, tmp_path):
    machine = client_machine.make(tmp_path / "machine")
    machine.answer(secret="x\n", active="activating", journal="", status="000", body="")
    # The downloads of the test machine have other checksums.
    text = re.sub(r"\b[0-9a-f]{128}\b", "", user_data)
    done = machine.run("bash", text=text)
    log = machine.path("/var/log/pinpipe-user-data.log")
    assert done.returncode == 0, log.read_text() if log.exists() else done.stderr
    brokers, role = cloud.state_value("cluster", "bootstrap_servers"), NAMES["role-arn"]

    def ours(text):
        return text.replace(templates.VALUES["role-arn"], role).replace(
            templates.VALUES["bootstrap-servers"], brokers
        )

    assert machine.text(f"{KAFKA}/bin/client.properties") == ours(CLIENT_PROPERTIES)
    assert machine.text("/etc/pinpipe/kafka-rest.properties") == ours(
        re.sub("zookeeper.*\n", "", PROXY_PROPERTIES)
    )
    assert machine.text("/var/lib/pinpipe/ready") == "ready\n"


def test_machine_requires_tokens_and_the_newest_image(cloud):
    given = one(cloud, "ec2.RunInstances")
    assert (
        given["MetadataOptions"]["HttpTokens"] == "required"
        and given["MinCount"] == given["MaxCount"] == 1
        and given["ClientToken"]
    )
    images = cloud.boto("ec2").describe_images(
        Owners=["amazon"],
        Filters=[{"Name": "name", "Values": ["amzn2-ami-kernel-5.10-hvm-*-x86_64-gp2"]}],
    )["Images"]
    assert given["ImageId"] == max(images, key=lambda image: image["CreationDate"])["ImageId"]


def integrations(cloud):
    """Returns the integration that was put for each path and method."""
    gateway, api = cloud.boto("apigateway"), cloud.state_value("api")
    paths = {
        each["id"]: each["path"]
        for each in gateway.get_resources(restApiId=api, limit=500)["items"]
    }
    return {
        (paths[given["resourceId"]], given["httpMethod"]): given
        for given in sent(cloud, "apigateway.PutIntegration")
    }


ROUTES = {
    ("/streams", "GET"): "list_streams.vtl",
    ("/streams/{stream-name}", "GET"): "describe_stream.vtl",
    ("/streams/{stream-name}", "POST"): "create_stream.vtl",
    ("/streams/{stream-name}", "DELETE"): "delete_stream.vtl",
    ("/streams/{stream-name}/record", "PUT"): "put_record.vtl",
    ("/streams/{stream-name}/records", "PUT"): "put_records.vtl",
}


def test_sent_mapping_templates_are_the_tested_ones(cloud):
    put = integrations(cloud)
    assert set(put) == {*ROUTES, ("/{proxy+}", "ANY")}
    for route, name in ROUTES.items():
        given = put[route]
        assert given["requestTemplates"] == {"application/json": rendered(f"mapping/{name}")}, route
        assert given["uri"] == f"arn:aws:apigateway:us-east-1:kinesis:action/{OPERATIONS[name]}"
        assert (given["type"], given["integrationHttpMethod"], given["passthroughBehavior"]) == (
            "AWS",
            "POST",
            "NEVER",
        )
        assert given["credentials"] == "arn:aws:iam::123456789012:role/me-kinesis-access-role"


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_sent_template_turns_a_record_into_a_request(cloud, route):
    template = integrations(cloud)[route]["requestTemplates"]["application/json"]
    record = {"data": POST, "partition-key": "k"}
    body = json.dumps({"records": [record]} if route[0].endswith("records") else record)
    request = json.loads(apply(template, body, stream_name="streaming-me-pin"))
    shape = KINESIS.operation_model(OPERATIONS[ROUTES[route]]).input_shape
    checked = {**request, **({"Data": b""} if "Data" in request else {})}
    for each in checked.get("Records", []):
        assert json.loads(base64.b64decode(each["Data"])) == POST
        each["Data"] = b""
    assert botocore.validate.ParamValidator().validate(checked, shape).generate_report() == ""
    if "Data" in request:
        assert (
            json.loads(base64.b64decode(request["Data"])) == POST and request["PartitionKey"] == "k"
        )


def test_proxy_integration_sends_the_password_only(cloud):
    given = integrations(cloud)["/{proxy+}", "ANY"]
    password = next(
        each["Value"]
        for each in sent(cloud, "ssm.PutParameter")
        if each["Name"].endswith("proxy-password")
    )
    assert given["uri"] == f"http://{cloud.state_value('address', 'ip')}:8082/{{proxy}}"
    assert given["requestParameters"] == {
        "integration.request.path.proxy": "method.request.path.proxy",
        "integration.request.header.Authorization": f"'Basic {base64.b64encode(f'api-gateway:{password}'.encode()).decode()}'",  # noqa: E501
    }
    assert re.fullmatch(r"[0-9a-zA-Z]{43,}", password), (
        "as random as 256 bits, and fit for a properties file"
    )


def test_every_method_requires_the_api_key(cloud):
    methods = sent(cloud, "apigateway.PutMethod")
    assert len(methods) == 7 and all(
        method["apiKeyRequired"] and method["authorizationType"] == "NONE" for method in methods
    )


def test_sent_policies_are_the_tested_ones(cloud):
    policies = {
        each["RoleName"]: each["PolicyDocument"] for each in sent(cloud, "iam.PutRolePolicy")
    }
    trusts = {
        each["RoleName"]: each["AssumeRolePolicyDocument"] for each in sent(cloud, "iam.CreateRole")
    }
    assert set(policies) == set(trusts) == set(ROLES)
    for role, (trust, policy) in ROLES.items():
        assert json.loads(trusts[role]) == json.loads(
            rendered(f"policy/{trust}.json")
        ) and json.loads(policies[role]) == json.loads(rendered(f"policy/{policy}.json"))
        trusting = json.loads(trusts[role])
        for statement in trusting["Statement"]:
            statement["Resource"] = f"arn:aws:iam::123456789012:role/{role}"
        for document in (policies[role], json.dumps(trusting)):
            found = findings(document)
            assert not found, "\n".join(
                f"{role} {finding.issue} {finding.detail}" for finding in found
            )
    assert not sent(cloud, "iam.AttachRolePolicy")


def tags_of(given):
    """Returns the tags of a request, whatever form its service has for them."""
    tags = (
        given.get("Tags")
        or given.get("tags")
        or [tag for each in given.get("TagSpecifications", []) for tag in each["Tags"]]
    )
    return tags if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags}


def test_every_resource_is_created_with_tags(cloud):
    makes = (
        "Create",
        "RunInstances",
        "AllocateAddress",
        "ImportKeyPair",
        "PutParameter",
        "AuthorizeSecurityGroupIngress",
    )
    made = [
        (name, given)
        for name, given in cloud.sent
        if name.partition(".")[2].startswith(makes)
        and name not in (*MAKES_WITHOUT_TAGS, "ec2.CreateTags")
    ]
    assert len(made) >= 25
    for name, given in made:
        assert TAGS.items() <= tags_of(given).items() and "pinpipe:resource" in tags_of(given), (
            name,
            tags_of(given),
        )
    for bucket in ("user-me-bucket", "user-me-airflow"):
        tagging = [
            each["Tagging"]["TagSet"]
            for each in sent(cloud, "s3.PutBucketTagging")
            if each["Bucket"] == bucket
        ]
        assert TAGS.items() <= {tag["Key"]: tag["Value"] for tag in tagging[-1]}.items()


def test_proxy_port_is_open_to_api_gateway_only(cloud):
    rules = [
        (each["GroupId"], rule)
        for each in sent(cloud, "ec2.AuthorizeSecurityGroupIngress")
        for rule in each["IpPermissions"]
    ]
    client, cluster, airflow = (
        cloud.state_value(f"group-{name}") for name in ("client", "cluster", "airflow")
    )
    to_client = [rule for group, rule in rules if group == client]
    assert {(rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) for rule in to_client} == {
        (8082, 8082, "tcp")
    }
    assert {each["CidrIp"] for rule in to_client for each in rule["IpRanges"]} == GATEWAY_RANGES
    assert [
        pair["GroupId"]
        for group, rule in rules
        if group == cluster
        for pair in rule["UserIdGroupPairs"]
    ] == [client]
    assert [
        pair["GroupId"]
        for group, rule in rules
        if group == airflow
        for pair in rule["UserIdGroupPairs"]
    ] == [airflow]
    assert not [
        each
        for _, rule in rules
        for each in rule.get("IpRanges", [])
        if each["CidrIp"].endswith("/0")
    ] and not [rule for _, rule in rules if rule.get("Ipv6Ranges")]


def test_cluster_requires_tls_and_iam(cloud):
    given = one(cloud, "kafka.CreateClusterV2")["Provisioned"]
    assert given["ClientAuthentication"] == {
        "Sasl": {"Iam": {"Enabled": True}},
        "Unauthenticated": {"Enabled": False},
    }
    assert given["EncryptionInfo"]["EncryptionInTransit"] == {
        "ClientBroker": "TLS",
        "InCluster": True,
    }
    assert given["BrokerNodeGroupInfo"]["SecurityGroups"] == [cloud.state_value("group-cluster")]
    connector = one(cloud, "kafkaconnect.CreateConnector")
    assert connector["kafkaClusterClientAuthentication"] == {"authenticationType": "IAM"}
    assert connector["kafkaClusterEncryptionInTransit"] == {"encryptionType": "TLS"}


def test_buckets_are_private_and_encrypted(cloud):
    for bucket in ("user-me-bucket", "user-me-airflow"):
        block = [
            each["PublicAccessBlockConfiguration"]
            for each in sent(cloud, "s3.PutPublicAccessBlock")
            if each["Bucket"] == bucket
        ]
        assert block == [
            dict.fromkeys(
                (
                    "BlockPublicAcls",
                    "IgnorePublicAcls",
                    "BlockPublicPolicy",
                    "RestrictPublicBuckets",
                ),
                True,
            )
        ]
        rules = [
            each["ServerSideEncryptionConfiguration"]["Rules"]
            for each in sent(cloud, "s3.PutBucketEncryption")
            if each["Bucket"] == bucket
        ]
        assert [
            rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] for rule in rules[0]
        ] == ["AES256"]
    assert [each["Bucket"] for each in sent(cloud, "s3.PutBucketVersioning")] == ["user-me-airflow"]
    assert not [
        name
        for name, given in cloud.sent
        if name in ("s3.PutBucketAcl", "s3.PutBucketPolicy") or given.get("ACL")
    ]


def test_secrets_are_stored_encrypted(cloud):
    assert {
        each["Name"]: each["Type"] for each in sent(cloud, "ssm.PutParameter")
    } == dict.fromkeys(("/pinpipe/me/proxy-password", "/pinpipe/me/key-pair"), "SecureString")
    assert not [each for each in sent(cloud, "ssm.PutParameter") if each.get("Overwrite")]


def test_public_key_belongs_to_the_private_key(cloud, tmp_path):
    material = one(cloud, "ec2.ImportKeyPair")["PublicKeyMaterial"]
    file = cloud.data / "aws" / "me-key.pem"
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True
    ).stdout
    assert material.decode().split()[:2] == derived.split()[:2] and derived.startswith("ssh-rsa ")
    checked = subprocess.run(
        ["openssl", "rsa", "-in", file, "-check", "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "2048 bit" in checked


def test_connector_gets_the_configured_properties(cloud):
    given = one(cloud, "kafkaconnect.CreateConnector")
    properties = given["connectorConfiguration"]
    assert (
        properties["s3.bucket.name"] == "user-me-bucket"
        and properties["topics.regex"] == r"me\..*"
        and properties["s3.region"] == "us-east-1"
    )
    assert not [value for value in properties.values() if "{" in value]
    assert given["capacity"] == {"provisionedCapacity": {"mcuCount": 1, "workerCount": 1}}
    worker = base64.b64decode(
        one(cloud, "kafkaconnect.CreateWorkerConfiguration")["propertiesFileContent"]
    ).decode()
    assert "key.converter=org.apache.kafka.connect.storage.StringConverter\n" in worker

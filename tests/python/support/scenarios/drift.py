"""Changes made to AWS outside pinpipe: the plan reports them, an apply repairs them, and the plan
after it is empty.
"""

import base64
import re

from support.scenarios.drift_changes import BUCKET, DRIFT, GONE, PROXY, remove_role, retag, rules

TAGGED = [
    "group-client",
    "group-cluster",
    "s3-endpoint",
    "role-client",
    "role-connector",
    "role-kinesis",
    "instance-profile",
    "key-pair",
    "bucket",
    "cluster",
    "client",
    "address",
    "plugin",
    "worker-configuration",
    "connector",
    "stream-pin",
    "stream-geo",
    "stream-user",
    "api",
    "api-key",
    "usage-plan",
]


TOPICS = {"topic-pin", "topic-geo", "topic-user"}


def assert_repaired(module, cloud, expected, may=()):
    """Asserts that the plan is as expected, applies it, and asserts that the next plan is empty."""
    planned = cloud.plan()
    assert set(planned) - set(may) == set(expected), planned
    for key, (action, reason) in expected.items():
        assert planned[key][0] == action and re.search(reason, planned[key][1]), (key, planned[key])
    done = {
        step["key"]: step["action"] for step in cloud.apply()["steps"] if step["action"] != "no-op"
    }
    assert {key: action for key, (action, _) in expected.items()}.items() <= done.items(), done
    assert cloud.plan() == {}
    module.mark_clean()
    return done


def drift_is_reported_and_repaired(module, cloud, name):
    expected, change = DRIFT[name]
    change(cloud)
    assert_repaired(module, cloud, expected)


def machine_gets_its_role_back(module, cloud):
    """Without its role, the machine is not available in SSM, so that topics cannot be observed."""
    remove_role(cloud)
    assert_repaired(
        module,
        cloud,
        {"instance-profile": ("update", "`me-ec2-access-role` is not in the instance profile")},
        may={"client", *TOPICS},
    )


def tags_are_restored(module, cloud, change, keys=TAGGED):
    tags = {"team": "another"} if change == "changed" else None
    retag(cloud, tags)
    reason = "tag `team`: another → data" if tags else "tag `team` is missing"
    assert_repaired(module, cloud, {key: ("update", reason) for key in keys})


def unmanaged_additions_are_kept(module, cloud):
    ec2, group = cloud.boto("ec2"), cloud.state_value("group-client")
    rule = {
        "IpProtocol": "tcp",
        "FromPort": 443,
        "ToPort": 443,
        "IpRanges": [{"CidrIp": "192.0.2.0/24"}],
    }
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    ec2.create_tags(Resources=[group], Tags=[{"Key": "cost-center", "Value": "7"}])
    own = cloud.boto("s3").get_bucket_tagging(Bucket=BUCKET)["TagSet"]
    cloud.boto("s3").put_bucket_tagging(
        Bucket=BUCKET, Tagging={"TagSet": [*own, {"Key": "cost-center", "Value": "7"}]}
    )
    assert cloud.plan() == {}
    cloud.boto("s3").put_bucket_tagging(
        Bucket=BUCKET,
        Tagging={
            "TagSet": [{"Key": "pinpipe:id", "Value": "me"}, {"Key": "cost-center", "Value": "7"}]
        },
    )
    assert_repaired(
        module,
        cloud,
        {"bucket": ("update", "tag `pinpipe:resource` is missing; tag `team` is missing")},
    )
    assert {"Key": "cost-center", "Value": "7"} in cloud.boto("s3").get_bucket_tagging(
        Bucket=BUCKET
    )["TagSet"]
    assert any(each["FromPort"] == 443 for each in rules(cloud, "group-client"))


def lost_password_is_replaced_everywhere(module, cloud):
    before = cloud.state_value("client"), len(cloud.aws.calls)
    cloud.boto("ssm").delete_parameter(Name="/pinpipe/me/proxy-password")
    assert_repaired(module, cloud, {"proxy-secret": ("create", GONE)}, may={"api", "client"})
    secret = cloud.boto("ssm").get_parameter(
        Name="/pinpipe/me/proxy-password", WithDecryption=True
    )["Parameter"]["Value"]
    sent = base64.b64encode(f"api-gateway:{secret}".encode()).decode()
    resources = cloud.boto("apigateway").get_resources(
        restApiId=cloud.state_value("api"), embed=["methods"], limit=500
    )["items"]
    proxy = next(each for each in resources if each["path"] == PROXY)["resourceMethods"]["ANY"][
        "methodIntegration"
    ]
    assert (
        proxy["requestParameters"]["integration.request.header.Authorization"] == f"'Basic {sent}'"
    )
    # The proxy reads the password only when it starts.
    scripts = [
        "\n".join(call.parameters["Parameters"]["commands"])
        for call in cloud.aws.calls[before[1] :]
        if call.name == "ssm.SendCommand"
    ]
    assert cloud.state_value("client") != before[0] or any(
        re.search(r"systemctl .*restart.* kafka-rest", script) for script in scripts
    )


def lost_key_file_is_restored_from_parameter_store(module, cloud):
    file = cloud.data / "aws" / "me-key.pem"
    before = file.read_bytes()
    file.unlink()
    assert_repaired(
        module, cloud, {"key-pair": ("update", "me-key.pem` is missing: it is restored")}
    )
    assert file.read_bytes() == before and file.stat().st_mode & 0o777 == 0o400


def lost_key_parameter_is_restored_from_the_file(module, cloud):
    cloud.boto("ssm").delete_parameter(Name="/pinpipe/me/key-pair")
    assert_repaired(
        module, cloud, {"key-pair": ("update", "parameter `/pinpipe/me/key-pair` is missing")}
    )
    kept = cloud.boto("ssm").get_parameter(Name="/pinpipe/me/key-pair", WithDecryption=True)[
        "Parameter"
    ]
    assert (
        kept["Value"] == (cloud.data / "aws" / "me-key.pem").read_text()
        and kept["Type"] == "SecureString"
    )


def key_lost_everywhere_is_recreated_with_its_machine(module, cloud):
    machine, file = cloud.state_value("client"), cloud.data / "aws" / "me-key.pem"
    before = file.read_bytes()
    file.unlink()
    cloud.boto("ssm").delete_parameter(Name="/pinpipe/me/key-pair")
    assert_repaired(
        module,
        cloud,
        {
            "key-pair": ("replace", "the private key is lost"),
            "client": ("replace", "`key-pair` is replaced"),
        },
        may={"address", *TOPICS},
    )
    assert file.read_bytes() != before and cloud.state_value("client") != machine

"""The IAM policies: well-formed, within the limits of IAM, and with least privilege."""

import json
import re

import parliament
import pytest

from support.policies import findings
from support.templates import ACCOUNT, render, template_names

POLICIES = template_names("policy", ".json")
TRUST = [name for name in POLICIES if name.endswith("_trust.json")]
PERMISSIONS = [name for name in POLICIES if name not in TRUST]

# IAM counts characters without white space.
INLINE_LIMIT, TRUST_LIMIT = 10_240, 2_048

ACTIONS = {
    (service["prefix"], privilege["privilege"].lower()): {
        kind["resource_type"] for kind in privilege["resource_types"]
    }
    - {""}
    for service in parliament.iam_definition
    for privilege in service["privileges"]
}


def many(value):
    return value if isinstance(value, list) else [value]


def statements(name):
    return json.loads(render(f"policy/{name}"))["Statement"]


def test_each_role_has_a_trust_policy_and_permissions():
    assert TRUST == [
        "airflow_trust.json",
        "connector_trust.json",
        "ec2_trust.json",
        "kinesis_trust.json",
    ]
    assert PERMISSIONS == ["airflow.json", "client.json", "connector.json", "kinesis.json"]


@pytest.mark.parametrize("name", POLICIES)
def test_placeholders_are_rendered_and_statement_ids_are_unique(name):
    assert "@" not in render(f"policy/{name}")
    names = [statement["Sid"] for statement in statements(name)]
    assert len(set(names)) == len(names) and all(sid.isalnum() for sid in names)
    assert json.loads(render(f"policy/{name}"))["Version"] == "2012-10-17"


@pytest.mark.parametrize("name", POLICIES)
def test_parliament_finds_nothing(name):
    """Not even of low severity: an unknown action is one of those."""
    policy = json.loads(render(f"policy/{name}"))
    if name in TRUST:
        # A trust policy has its role as an implicit resource; parliament requires an explicit one.
        for statement in policy["Statement"]:
            statement["Resource"] = f"arn:aws:iam::{ACCOUNT}:role/abc"
    found = findings(json.dumps(policy))
    assert not found, "\n".join(
        f"{finding.severity} {finding.issue} {finding.detail}" for finding in found
    )


def test_parliament_finds_mistakes():
    """Otherwise the test above could not fail."""
    wrong = [
        {"Action": "kinesis:PutRecordz", "Resource": "*"},
        {"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::bucket/*"},
        {
            "Action": "sts:AssumeRole",
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:NoSuchKey": "x"}},
        },
    ]
    for statement in wrong:
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}
        assert findings(json.dumps(policy)), statement


@pytest.mark.parametrize("name", POLICIES)
def test_policy_fits_the_size_limit(name):
    # Names have the maximum length that AWS permits.
    text = render(
        f"policy/{name}",
        id="i" * 20,
        cluster="c" * 64,
        connector="c" * 128,
        bucket="b" * 63,
        airflow="a" * 80,
        airflow_bucket="b" * 63,
        role_arn=f"arn:aws-us-gov:iam::{ACCOUNT}:role/{'r' * 64}",
        partition="aws-us-gov",
        region="ap-southeast-1",
    )
    assert len(re.sub(r"\s", "", text)) < (TRUST_LIMIT if name in TRUST else INLINE_LIMIT)


@pytest.mark.parametrize("name", PERMISSIONS)
def test_wildcard_resource_only_for_actions_without_resources(name):
    for statement in statements(name):
        if "*" not in many(statement.get("Resource", [])):
            continue
        for action in many(statement["Action"]):
            service, privilege = action.split(":")
            assert ACTIONS[service, privilege.lower()] == set(), (
                f"{action} can be kept to {ACTIONS[service, privilege.lower()]}"
            )


@pytest.mark.parametrize("name", PERMISSIONS)
def test_no_statement_allows_a_whole_service(name):
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        for action in many(statement["Action"]):
            assert re.fullmatch(r"[a-z0-9-]+:[A-Z]\w{5,}\*?", action), action
        for resource in many(statement.get("Resource", [])):
            # Region and account are given, except where AWS itself owns the queue.
            assert (
                resource == "*"
                or resource.startswith("arn:aws:s3:::")
                or ACCOUNT in resource
                or statement["Sid"] == "Queue"
            ), resource


@pytest.mark.parametrize("name", TRUST)
def test_services_act_for_this_account_only(name):
    for statement in statements(name):
        assert (statement["Effect"], statement["Action"]) == ("Allow", "sts:AssumeRole")
        # EC2 has no such key: an instance profile cannot be passed to another account.
        if statement["Principal"].get("Service", "ec2.amazonaws.com") != "ec2.amazonaws.com":
            condition = {
                **statement["Condition"].get("StringEquals", {}),
                **statement["Condition"].get("StringEqualsIfExists", {}),
            }
            assert condition == {"aws:SourceAccount": ACCOUNT}


def test_client_role_can_be_created_although_it_names_itself():
    """CreateRole rejects a principal that does not exist yet; the account's root always exists."""
    itself = next(
        statement for statement in statements("ec2_trust.json") if statement["Sid"] == "RoleItself"
    )
    role = f"arn:aws:iam::{ACCOUNT}:role/abc-ec2-access-role"
    assert itself["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    assert itself["Condition"] == {"ArnEquals": {"aws:PrincipalArn": role}}
    # With the account's root as principal, the role's own policy must allow it too.
    assert {
        "Sid": "RoleItself",
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Resource": role,
    } in statements("client.json")


@pytest.mark.parametrize("name", PERMISSIONS)
def test_resources_of_another_pipeline_are_out_of_reach(name):
    text = json.dumps(statements(name))
    for other in ("topic/abc-cluster/*/*", "stream/*", "parameter/*", "arn:aws:s3:::*", "role/*"):
        assert other not in text


def test_arns_follow_the_partition():
    for name in POLICIES:
        assert "arn:aws:" not in render(
            f"policy/{name}", partition="aws-cn", role_arn="arn:aws-cn:iam::1:role/r"
        )

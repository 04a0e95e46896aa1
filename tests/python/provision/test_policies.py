"""The IAM policies: well-formed, within IAM's limits, and no wider than they must be."""

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
    (service["prefix"], privilege["privilege"].lower()): {kind["resource_type"] for kind in privilege["resource_types"]} - {""}
    for service in parliament.iam_definition
    for privilege in service["privileges"]
}


def many(value):
    return value if isinstance(value, list) else [value]


def statements(name):
    return json.loads(render(f"policy/{name}"))["Statement"]


def test_each_role_has_a_trust_policy_and_permissions():
    assert TRUST == ["airflow_trust.json", "connector_trust.json", "ec2_trust.json", "kinesis_trust.json"]
    assert PERMISSIONS == ["airflow.json", "client.json", "connector.json", "kinesis.json"]


@pytest.mark.parametrize("name", POLICIES)
def test_no_placeholder_is_left_and_each_statement_is_named_once(name):
    assert "@" not in render(f"policy/{name}")
    names = [statement["Sid"] for statement in statements(name)]
    assert len(set(names)) == len(names) and all(sid.isalnum() for sid in names)
    assert json.loads(render(f"policy/{name}"))["Version"] == "2012-10-17"


@pytest.mark.parametrize("name", POLICIES)
def test_parliament_finds_nothing(name):
    """Not even of low severity: an action that does not exist is one of those."""
    policy = json.loads(render(f"policy/{name}"))
    if name in TRUST:
        # The resource of a trust policy is the role it belongs to; parliament wants to see it.
        for statement in policy["Statement"]:
            statement["Resource"] = f"arn:aws:iam::{ACCOUNT}:role/abc"
    found = findings(json.dumps(policy))
    assert not found, "\n".join(f"{finding.severity} {finding.issue} {finding.detail}" for finding in found)


def test_parliament_finds_mistakes():
    """Else the test above would hold nothing."""
    wrong = [
        {"Action": "kinesis:PutRecordz", "Resource": "*"},
        {"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::bucket/*"},
        {"Action": "sts:AssumeRole", "Resource": "*", "Condition": {"StringEquals": {"aws:NoSuchKey": "x"}}},
    ]
    for statement in wrong:
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}
        assert findings(json.dumps(policy)), statement


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_fits(name):
    # Names are as long as AWS lets them be.
    text = render(f"policy/{name}", id="i" * 20, cluster="c" * 64, connector="c" * 128, bucket="b" * 63, airflow="a" * 80, airflow_bucket="b" * 63, role_arn=f"arn:aws-us-gov:iam::{ACCOUNT}:role/{'r' * 64}", partition="aws-us-gov", region="ap-southeast-1")
    assert len(re.sub(r"\s", "", text)) < (TRUST_LIMIT if name in TRUST else INLINE_LIMIT)


@pytest.mark.parametrize("name", PERMISSIONS)
def test_all_resources_are_allowed_only_where_an_action_knows_no_resource(name):
    for statement in statements(name):
        if "*" not in many(statement.get("Resource", [])):
            continue
        for action in many(statement["Action"]):
            service, privilege = action.split(":")
            assert ACTIONS[service, privilege.lower()] == set(), f"{action} can be kept to {ACTIONS[service, privilege.lower()]}"


@pytest.mark.parametrize("name", PERMISSIONS)
def test_whole_services_are_not_allowed(name):
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        for action in many(statement["Action"]):
            assert re.fullmatch(r"[a-z0-9-]+:[A-Z]\w{5,}\*?", action), action
        for resource in many(statement.get("Resource", [])):
            # Region and account are given, except where AWS itself owns the queue.
            assert resource == "*" or resource.startswith("arn:aws:s3:::") or ACCOUNT in resource or statement["Sid"] == "Queue", resource


@pytest.mark.parametrize("name", TRUST)
def test_a_service_acts_for_this_account_only(name):
    for statement in statements(name):
        assert (statement["Effect"], statement["Action"]) == ("Allow", "sts:AssumeRole")
        # EC2 gives no such key: an instance profile cannot be passed to another account.
        if statement["Principal"].get("Service", "ec2.amazonaws.com") != "ec2.amazonaws.com":
            condition = {**statement["Condition"].get("StringEquals", {}), **statement["Condition"].get("StringEqualsIfExists", {})}
            assert condition == {"aws:SourceAccount": ACCOUNT}


def test_the_clients_role_can_be_created_naming_itself():
    """A principal that does not exist yet is refused by CreateRole; the account's root always does."""
    itself = next(statement for statement in statements("ec2_trust.json") if statement["Sid"] == "RoleItself")
    role = f"arn:aws:iam::{ACCOUNT}:role/abc-ec2-access-role"
    assert itself["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    assert itself["Condition"] == {"ArnEquals": {"aws:PrincipalArn": role}}
    # The account's root as principal leaves it to the role's own policy, which must allow it too.
    assert {"Sid": "RoleItself", "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role} in statements("client.json")


@pytest.mark.parametrize("name", PERMISSIONS)
def test_another_pipeline_in_the_account_is_out_of_reach(name):
    text = json.dumps(statements(name))
    for other in ("topic/abc-cluster/*/*", "stream/*", "parameter/*", "arn:aws:s3:::*", "role/*"):
        assert other not in text


def test_names_of_another_partition_follow():
    for name in POLICIES:
        assert "arn:aws:" not in render(f"policy/{name}", partition="aws-cn", role_arn="arn:aws-cn:iam::1:role/r")

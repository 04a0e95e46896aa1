"""Security groups and their rules: objects of moto, with the checks of EC2 for duplicates,
atomicity and dependencies.
"""

import fnmatch
import ipaddress
import re

from moto.ec2.models.security_groups import SecurityGroupRule

from .service import ACCOUNT, refuse, tags_of

DESCRIPTION = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{0,255}")
PROTOCOLS = {"6": "tcp", "17": "udp", "1": "icmp", "all": "-1"}


def check_text(parameter, text):
    if not DESCRIPTION.fullmatch(text):
        raise refuse(
            "InvalidParameterValue",
            (
                f"Value ({text}) for parameter {parameter} is invalid. Character sets "
                "beyond ASCII are not supported."
            ),
        )


def key_of(rule):
    """Returns what identifies a rule; descriptions do not count."""
    source = rule.source_group.get("GroupId")
    return (
        rule.ip_protocol,
        rule.from_port,
        rule.to_port,
        rule.cidr_ipv4,
        rule.cidr_ipv6,
        source,
        rule.prefix_list_id,
    )


def shown(rule):
    """Returns a rule as DescribeSecurityGroupRules returns it."""
    region = rule.ec2_backend.region_name
    answer = {
        "SecurityGroupRuleId": rule.id,
        "GroupId": rule.group_id,
        "GroupOwnerId": ACCOUNT,
        "IsEgress": rule.is_egress,
        "IpProtocol": rule.ip_protocol,
        "FromPort": -1 if rule.from_port is None else rule.from_port,
        "ToPort": -1 if rule.to_port is None else rule.to_port,
        "CidrIpv4": rule.cidr_ipv4,
        "CidrIpv6": rule.cidr_ipv6,
        "PrefixListId": rule.prefix_list_id,
        "Description": rule.ip_range.get("Description") or rule.source_group.get("Description"),
        "SecurityGroupRuleArn": f"arn:aws:ec2:{region}:{ACCOUNT}:security-group-rule/{rule.id}",
        "Tags": [{"Key": tag["key"], "Value": tag["value"]} for tag in rule.get_tags()],
    }
    if rule.source_group:
        answer["ReferencedGroupInfo"] = {"GroupId": rule.source_group["GroupId"], "UserId": ACCOUNT}
    return {name: value for name, value in answer.items() if value is not None}


def network(text, version):
    """Returns a CIDR block as EC2 stores it, without host bits."""
    try:
        block = ipaddress.ip_network(text, strict=False)
    except ValueError:
        block = None
    if block is None or "/" not in text or block.version != version:
        raise refuse("InvalidParameterValue", f"CIDR block {text} is malformed")
    return str(block)


class Groups:
    """Operations on security groups."""

    def group_of(self, call):
        given, store = call.parameters, self.store(call.region)
        group = (
            store.get_security_group_from_id(given["GroupId"])
            if "GroupId" in given
            else store.get_security_group_by_name_or_id(given.get("GroupName", ""), None)
        )
        if not group:
            raise refuse(
                "InvalidGroup.NotFound",
                (
                    f"The security group '{given.get('GroupId') or given.get('GroupName')}' "
                    "does not exist"
                ),
            )
        return group

    def do_create_security_group(self, call):
        given = call.parameters
        check_text("GroupName", given["GroupName"])
        check_text("GroupDescription", given.get("Description", ""))
        if given["GroupName"].startswith("sg-"):
            raise refuse(
                "InvalidParameterValue",
                (
                    f"Value ({given['GroupName']}) for parameter GroupName is invalid. A "
                    "group name may not start with sg-."
                ),
            )
        return self.forward(call)

    def permissions_of(self, call):
        """Returns the permissions of a call, from either of the two forms."""
        given = call.parameters
        if "IpPermissions" in given or "IpProtocol" not in given:
            return given.get("IpPermissions", [])
        one = {name: given[name] for name in ("IpProtocol", "FromPort", "ToPort") if name in given}
        return [{**one, "IpRanges": [{"CidrIp": given["CidrIp"]}] if "CidrIp" in given else []}]

    def rules_of(self, call, group, egress):
        """Returns the rules of a call, as objects that belong to no group yet."""
        store = self.store(call.region)
        for permission in self.permissions_of(call):
            protocol = PROTOCOLS.get(
                permission.get("IpProtocol", "").lower(), permission.get("IpProtocol", "").lower()
            )
            first, last = permission.get("FromPort"), permission.get("ToPort")
            if protocol in ("tcp", "udp") and (
                first is None or last is None or not 0 <= first <= last <= 65535
            ):
                raise refuse(
                    "InvalidParameterValue",
                    (
                        "Invalid value for portRange. Must specify both from and to ports with "
                        "TCP/UDP."
                    ),
                )
            if protocol not in ("tcp", "udp", "icmp", "icmpv6", "-1") and not protocol.isdigit():
                raise refuse(
                    "InvalidParameterValue",
                    (
                        f"Invalid value '{permission.get('IpProtocol')}' for IP protocol. Unknown "
                        "protocol."
                    ),
                )
            sources = []
            for entry in permission.get("IpRanges", []):
                sources.append(({**entry, "CidrIp": network(entry["CidrIp"], 4)}, None))
            for entry in permission.get("Ipv6Ranges", []):
                sources.append(({**entry, "CidrIpv6": network(entry["CidrIpv6"], 6)}, None))
            for entry in permission.get("UserIdGroupPairs", []):
                source = store.get_security_group_by_name_or_id(
                    entry.get("GroupId") or entry.get("GroupName", ""), group.vpc_id
                )
                if not source:
                    raise refuse(
                        "InvalidGroup.NotFound",
                        (
                            f"The security group '{entry.get('GroupId') or entry.get('GroupName')}' "  # noqa: E501
                            "does not exist"
                        ),
                    )
                described = {"Description": entry["Description"]} if "Description" in entry else {}
                sources.append((None, {"GroupId": source.id, "UserId": ACCOUNT, **described}))
            if not sources and not permission.get("PrefixListIds"):
                raise refuse(
                    "MissingParameter",
                    "The request must contain at least one source for each permission",
                )
            for ip_range, source in sources:
                check_text("Description", (ip_range or source).get("Description", ""))
                yield SecurityGroupRule(
                    store, protocol, group.id, first, last, ip_range, source, None, is_egress=egress
                )

    def authorize(self, call):
        group, egress = self.group_of(call), call.operation.endswith("Egress")
        present = group.egress_rules if egress else group.ingress_rules
        added, known = list(self.rules_of(call, group, egress)), {key_of(rule) for rule in present}
        if not added:
            raise refuse(
                "MissingParameter",
                "Either 'ipPermissions' or 'securityGroupRuleIds' should be provided.",
            )
        for rule in added:
            if key_of(rule) in known:
                what = rule.cidr_ipv4 or rule.cidr_ipv6 or rule.source_group.get("GroupId")
                raise refuse(
                    "InvalidPermission.Duplicate",
                    (
                        f'the specified rule "peer: {what}, {rule.ip_protocol}, from port: '
                        f'{rule.from_port}, to port: {rule.to_port}, ALLOW" already exists'
                    ),
                )
            known.add(key_of(rule))
        for tag_specification in call.parameters.get("TagSpecifications", []):
            for rule in added:
                rule.add_tags(tags_of(tag_specification["Tags"]))
        present.extend(added)
        return {"Return": True, "SecurityGroupRules": [shown(rule) for rule in added]}

    do_authorize_security_group_ingress = authorize
    do_authorize_security_group_egress = authorize

    def revoke(self, call):
        group, egress = self.group_of(call), call.operation.endswith("Egress")
        present = group.egress_rules if egress else group.ingress_rules
        ids = call.parameters.get("SecurityGroupRuleIds", [])
        missing = set(ids) - {rule.id for rule in present}
        if missing:
            raise refuse(
                "InvalidSecurityGroupRuleId.NotFound",
                f"The security group rule ID '{sorted(missing)[0]}' does not exist",
            )
        wanted = {key_of(rule) for rule in self.rules_of(call, group, egress)} if not ids else set()
        # In the default VPC a missing rule is no error.
        gone = [rule for rule in present if rule.id in ids or key_of(rule) in wanted]
        present[:] = [rule for rule in present if not any(rule is each for each in gone)]
        return {
            "Return": True,
            "RevokedSecurityGroupRules": [
                {
                    name: value
                    for name, value in shown(rule).items()
                    if name
                    in (
                        "SecurityGroupRuleId",
                        "GroupId",
                        "IsEgress",
                        "IpProtocol",
                        "FromPort",
                        "ToPort",
                        "CidrIpv4",
                        "CidrIpv6",
                    )
                }
                for rule in gone
            ],
        }

    do_revoke_security_group_ingress = revoke
    do_revoke_security_group_egress = revoke

    def do_describe_security_group_rules(self, call):
        given = call.parameters
        found = [
            shown(rule)
            for group in self.store(call.region).describe_security_groups()
            for rule in (*group.egress_rules, *group.ingress_rules)
        ]
        ids = given.get("SecurityGroupRuleIds")
        if ids:
            missing = set(ids) - {rule["SecurityGroupRuleId"] for rule in found}
            if missing:
                raise refuse(
                    "InvalidSecurityGroupRuleId.NotFound",
                    f"The security group rule ID '{sorted(missing)[0]}' does not exist",
                )
            found = [rule for rule in found if rule["SecurityGroupRuleId"] in ids]
        for each in given.get("Filters", []):
            name, values = each["Name"], each["Values"]
            if name in ("group-id", "security-group-rule-id"):
                member = {"group-id": "GroupId", "security-group-rule-id": "SecurityGroupRuleId"}[
                    name
                ]
                found = [rule for rule in found if rule[member] in values]
            elif name.startswith("tag:"):
                found = [
                    rule
                    for rule in found
                    if any(
                        fnmatch.fnmatchcase(tags_of(rule["Tags"]).get(name[4:], "\0"), value)
                        for value in values
                    )
                ]
            elif name == "tag-key":
                found = [rule for rule in found if set(values) & set(tags_of(rule["Tags"]))]
            else:
                raise refuse("InvalidParameterValue", f"The filter '{name}' is invalid")
        page, token = self.page(
            found,
            given.get("MaxResults"),
            given.get("NextToken"),
            default=1000,
            code="InvalidNextToken",
        )
        return {"SecurityGroupRules": page, "NextToken": token}

    def do_delete_security_group(self, call):
        group = self.group_of(call)
        if group.is_default or group.name == "default":
            raise refuse(
                "CannotDelete",
                f'the specified group: "{group.id}" name: "default" cannot be deleted by a user',
            )
        if self.uses(call.region, group.id):
            raise refuse("DependencyViolation", f"resource {group.id} has a dependent object")
        return self.forward(call)

    def uses(self, region, group_id):
        """Returns what prevents the deletion of a security group."""
        found = []
        for instance in self.instances(region):
            groups = {group.id for group in instance.security_groups} | {
                group.id for nic in instance.nics.values() for group in nic.group_set
            }
            if self.state_of(instance) != "terminated" and group_id in groups:
                found.append(instance.id)
        for interface in self.store(region).enis.values():
            if interface.instance is None and group_id in {
                group.id for group in interface.group_set
            }:
                found.append(interface.id)
        for group in self.store(region).describe_security_groups():
            if group.id != group_id and any(
                rule.source_group.get("GroupId") == group_id
                for rule in (*group.ingress_rules, *group.egress_rules)
            ):
                found.append(group.id)
        for cluster in self.aws.services["kafka"].in_region(region):
            if group_id in cluster.provisioned["BrokerNodeGroupInfo"]["SecurityGroups"]:
                found.append(cluster.arn)
        for connector in self.aws.services["kafkaconnect"].connectors.values():
            if group_id in connector.settings["kafkaCluster"]["apacheKafkaCluster"]["vpc"].get(
                "securityGroups", []
            ):
                found.append(connector.arn)
        for environment in self.aws.services["mwaa"].environments.values():
            if group_id in environment.settings["NetworkConfiguration"]["SecurityGroupIds"]:
                found.append(environment.arn)
        return found

"""A deterministic snapshot of the account."""

import base64
import contextlib
import gzip
import hashlib
import json
import re

from .apigateway_stages import tree_of
from .ec2_groups import shown as rule_shown
from .service import plain_tags, tags_of

MOST_TEXT = 1 << 20


class Names:
    """Stable names for generated ids."""

    def __init__(self):
        self.known = {}

    def add(self, random, stable):
        if random:
            self.known[str(random)] = f"<{stable}>"

    def build(self):
        parts = sorted(self.known, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, parts))) if parts else None

    def text(self, text):
        return self.pattern.sub(lambda found: self.known[found[0]], text) if self.pattern else text

    def apply(self, value):
        """Returns a value with stable names."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            # Empty and unset values are the same.
            return {
                self.text(str(key)): self.apply(value[key])
                for key in sorted(value, key=str)
                if value[key] not in (None, "", [], {})
            }
        if isinstance(value, (list, tuple)):
            return [self.apply(item) for item in value]
        return value

    def digest(self, data):
        """Returns a digest of bytes that does not depend on generated ids."""
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        if len(data) <= MOST_TEXT:
            with contextlib.suppress(UnicodeDecodeError):
                data = self.text(data.decode()).encode()
        return hashlib.sha256(data).hexdigest()[:16]


def settled(lifecycle):
    """Returns the state in which a transition ends."""
    return lifecycle.following if lifecycle.moving and lifecycle.following else lifecycle.state


def tags(resource):
    return {tag["key"]: tag["value"] for tag in resource.get_tags()}


def name_everything(aws, names):
    """Gives every generated id a stable name."""
    for region, store in aws.bridge.regions("ec2"):
        for vpc in store.vpcs.values():
            names.add(
                vpc.id,
                f"vpc {region}"
                if vpc.is_default == "true" or vpc.is_default is True
                else f"vpc {tags(vpc)}",
            )
        for subnet in store.describe_subnets():
            names.add(subnet.id, f"subnet {subnet.availability_zone}")
        for group in store.describe_security_groups():
            names.add(group.id, f"group {group.name}")
        for instance in store.all_instances():
            name = tags(instance).get("Name", "unnamed")
            names.add(instance.id, f"instance {name}")
            addresses = [instance.private_ip] if instance.nics else []
            for address in addresses:
                names.add(address, f"private ip of {name}")
                names.add(address.replace(".", "-"), f"private ip of {name}")
        for pair in store.key_pairs.values():
            names.add(pair.key_fingerprint, f"fingerprint of {pair.key_name}")
        for table in store.route_tables.values():
            names.add(table.id, "route table")
        for address in store.addresses:
            name = tags(address).get("Name", "address")
            names.add(address.allocation_id, f"allocation {name}")
            names.add(address.public_ip, f"ip of {name}")
            names.add(address.public_ip.replace(".", "-"), f"ip of {name}")
    for _, store in aws.bridge.regions("ssm"):
        for name, versions in store._parameters.items():
            if (
                not name.startswith("/aws/")
                and versions
                and versions[-1].parameter_type == "SecureString"
            ):
                secret = versions[-1].value.partition(":")[2].partition(":")[2]
                names.add(secret, f"secret of {name}")
                names.add(
                    base64.b64encode(f"api-gateway:{secret}".encode()).decode(),
                    f"basic secret of {name}",
                )
    for cluster in aws.services["kafka"].clusters.values():
        names.add(cluster.arn.rpartition("/")[2], f"cluster {cluster.name}")
        names.add(cluster.mark, f"mark of {cluster.name}")
    connect = aws.services["kafkaconnect"]
    for kind, table in (
        ("plugin", connect.plugins),
        ("worker configuration", connect.workers),
        ("connector", connect.connectors),
    ):
        for thing in table.values():
            names.add(thing.arn.rpartition("/")[2], f"{kind} {thing.name}")
    gateway = aws.services["apigateway"]
    for api in gateway.apis.values():
        names.add(api.id, f"api {api.settings['name']}")
        for resource in api.resources.values():
            names.add(resource.id, f"resource {resource.path}")
    for key in gateway.keys.values():
        names.add(key.id, f"key {key.settings.get('name')}")
        names.add(key.value, f"value of key {key.settings.get('name')}")
    for plan in gateway.plans.values():
        names.add(plan.id, f"plan {plan.settings['name']}")
    names.build()


def groups(aws):
    for region, store in aws.bridge.regions("ec2"):
        for group in store.describe_security_groups():
            if not group.is_default and group.name != "default":
                rules = [rule_shown(rule) for rule in (*group.ingress_rules, *group.egress_rules)]
                for rule in rules:
                    rule["Tags"] = tags_of(rule["Tags"])
                    for made_up in (
                        "SecurityGroupRuleId",
                        "SecurityGroupRuleArn",
                        "GroupId",
                        "GroupOwnerId",
                    ):
                        del rule[made_up]
                yield {
                    "region": region,
                    "name": group.name,
                    "description": group.description,
                    "vpc": group.vpc_id,
                    "tags": tags(group),
                    "rules": rules,
                }


def key_pairs(aws):
    for region, store in aws.bridge.regions("ec2"):
        for pair in store.key_pairs.values():
            yield {
                "region": region,
                "name": pair.key_name,
                "fingerprint": pair.key_fingerprint,
                "tags": tags(pair),
            }


def instances(aws, names):
    for region, store in aws.bridge.regions("ec2"):
        for instance in store.all_instances():
            lifecycle = aws.services["ec2"].lifecycles.get(instance.id)
            state = instance._state.name
            if lifecycle and lifecycle.moving:
                state = lifecycle.following
            if state == "terminated":
                continue
            association = store.iam_instance_profile_associations.get(instance.id)

            yield {
                "region": region,
                "name": tags(instance).get("Name"),
                "state": state,
                "type": instance.instance_type,
                "image": instance.image_id,
                "key": instance.key_name,
                "subnet": instance.subnet_id,
                "groups": sorted(
                    {g.id for n in instance.nics.values() for g in n.group_set}
                    | {g.id for g in instance.security_groups}
                ),
                "profile": association.iam_instance_profile.name if association else None,
                "tags": tags(instance),
                "user data": names.digest(
                    base64.b64decode(getattr(instance, "user_data_text", ""))
                ),
            }


def addresses(aws):
    for region, store in aws.bridge.regions("ec2"):
        for address in store.addresses:
            yield {
                "region": region,
                "tags": tags(address),
                "instance": address.instance.id if address.instance else None,
            }


def vpc_endpoints(aws):
    for region, store in aws.bridge.regions("ec2"):
        for endpoint in store.vpc_end_points.values():
            if endpoint.state != "deleted":
                yield {
                    "region": region,
                    "service": endpoint.service_name,
                    "vpc": endpoint.vpc_id,
                    "type": endpoint.vpc_endpoint_type,
                    "route tables": sorted(endpoint.route_table_ids),
                    "tags": tags(endpoint),
                }


def roles(aws):
    for role in aws.bridge.store("iam").roles.values():
        yield {
            "name": role.name,
            "path": role.path,
            "description": role.description,
            "trust": json.loads(role.assume_role_policy_document),
            "inline": {name: json.loads(text) for name, text in role.policies.items()},
            "attached": sorted(role.managed_policies),
            "tags": tags_of(plain_tags(role)),
        }


def profiles(aws):
    for profile in aws.bridge.store("iam").instance_profiles.values():
        yield {
            "name": profile.name,
            "path": profile.path,
            "roles": [role.name for role in profile.roles],
            "tags": tags_of(plain_tags(profile)),
        }


def buckets(aws, names):
    store = aws.bridge.store("s3")
    for bucket in store.buckets.values():
        blocked = bucket.public_access_block
        yield {
            "name": bucket.name,
            "region": bucket.region_name,
            "versioning": bucket.versioning_status,
            "encryption": bucket.encryption,
            "public access block": blocked.to_config_dict() if blocked else None,
            "policy": json.loads(bucket.policy) if bucket.policy else None,
            "lifecycle": sorted(rule.id or "" for rule in bucket.rules),
            "ownership": bucket.ownership_rule,
            "tags": store.tagger.get_tag_dict_for_resource(bucket.arn),
            "objects": {
                name: {
                    "size": key.size,
                    "content": names.digest(key.value) if key.size <= MOST_TEXT else key.etag,
                }
                for name, key in sorted(bucket.keys.items())
                if hasattr(key, "value")
            },
            "unfinished uploads": sorted(upload.key_name for upload in bucket.multiparts.values()),
        }


def parameters(aws):
    for region, store in aws.bridge.regions("ssm"):
        for name, versions in store._parameters.items():
            if not name.startswith("/aws/") and versions:
                yield {
                    "region": region,
                    "name": name,
                    "type": versions[-1].parameter_type,
                    "value": versions[-1].value,
                    "tags": dict(store._resource_tags.get("Parameter", {}).get(name, {})),
                }


def streams(aws):
    for region, store in aws.bridge.regions("kinesis"):
        for stream in store.streams.values():
            lifecycle = aws.services["kinesis"].lifecycles.get(stream.arn)
            yield {
                "region": region,
                "name": stream.stream_name,
                "state": settled(lifecycle) if lifecycle else stream.status,
                "mode": stream.stream_mode["StreamMode"],
                "shards": sum(shard.is_open for shard in stream.shards.values()),
                "retention": stream.retention_period_hours,
                "tags": dict(stream.tags),
            }


def clusters(aws):
    for cluster in aws.services["kafka"].clusters.values():
        yield {
            "region": cluster.arn.split(":")[3],
            "name": cluster.name,
            "state": settled(cluster.lifecycle),
            "settings": cluster.provisioned,
            "tags": cluster.tags,
        }


def topics(aws):
    for cluster in aws.services["kafka"].clusters.values():
        for topic in cluster.topics.values():
            yield {
                "cluster": cluster.name,
                "name": topic.name,
                "partitions": topic.partitions,
                "replication": topic.replication,
                "configs": topic.configs,
            }


def connect(table):
    for thing in table.values():
        yield {
            "region": thing.arn.split(":")[3],
            "name": thing.name,
            "state": settled(thing.lifecycle),
            "settings": thing.settings,
            "tags": thing.tags,
        }


def environments(aws):
    for environment in aws.services["mwaa"].environments.values():
        yield {
            "name": environment.name,
            "state": settled(environment.lifecycle),
            "settings": environment.settings,
            "tags": environment.tags,
        }


def apis(aws):
    for api in aws.services["apigateway"].apis.values():
        stages = {}
        for name, stage in api.stages.items():
            kept = ("description", "variables", "methodSettings", "tracingEnabled", "tags")
            stages[name] = {
                **{each: stage[each] for each in kept if each in stage},
                "deployed": api.deployments[stage["deploymentId"]][1],
            }
        resources = {
            resource.path: resource.methods or "no methods" for resource in api.resources.values()
        }
        yield {
            "region": api.region,
            "name": api.settings["name"],
            "settings": api.settings,
            "tags": api.tags,
            "resources": resources,
            "stages": stages,
            "undeployed": not any(stage["deployed"] == tree_of(api) for stage in stages.values()),
        }


def keys(aws):
    for key in aws.services["apigateway"].keys.values():
        yield {
            "region": key.region,
            "name": key.settings.get("name"),
            "settings": key.settings,
            "tags": key.tags,
        }


def plans(aws):
    for plan in aws.services["apigateway"].plans.values():
        yield {
            "region": plan.region,
            "name": plan.settings["name"],
            "settings": plan.settings,
            "tags": plan.tags,
            "keys": sorted(key.settings.get("name", "") for key in plan.keys),
        }


def snapshot(aws):
    """Returns the account by types of resources, each a sorted list."""
    names = Names()
    name_everything(aws, names)
    kafka_connect = aws.services["kafkaconnect"]
    found = {
        "security groups": groups(aws),
        "key pairs": key_pairs(aws),
        "instances": instances(aws, names),
        "addresses": addresses(aws),
        "vpc endpoints": vpc_endpoints(aws),
        "roles": roles(aws),
        "instance profiles": profiles(aws),
        "buckets": buckets(aws, names),
        "parameters": parameters(aws),
        "streams": streams(aws),
        "clusters": clusters(aws),
        "topics": topics(aws),
        "plugins": connect(kafka_connect.plugins),
        "worker configurations": connect(kafka_connect.workers),
        "connectors": connect(kafka_connect.connectors),
        "environments": environments(aws),
        "rest apis": apis(aws),
        "api keys": keys(aws),
        "usage plans": plans(aws),
    }

    def order(thing):
        return json.dumps(thing, sort_keys=True, default=str)

    return {
        kind: in_order(names.apply(json.loads(json.dumps(list(things), default=str))), order)
        for kind, things in found.items()
    }


def in_order(things, order):
    """Returns sorted resources, with sorted rules and stages in them."""
    for thing in things:
        if "rules" in thing:
            thing["rules"].sort(key=order)
    return sorted(things, key=order)

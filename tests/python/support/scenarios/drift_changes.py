"""Changes of AWS resources outside pinpipe, and the expected plan after each."""

import json

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "lambda.amazonaws.com"},
        }
    ],
}


ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


BUCKET = "user-me-bucket"


OBJECT = "kafka-connect-s3/sink.zip"


def rules(cloud, group):
    found = cloud.boto("ec2").describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [cloud.state_value(group)]}]
    )["SecurityGroupRules"]
    return [rule for rule in found if not rule["IsEgress"]]


def revoke_rule(group):
    def change(cloud):
        rule = rules(cloud, group)[0]
        cloud.boto("ec2").revoke_security_group_ingress(
            GroupId=cloud.state_value(group), SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]]
        )

    return change


def role(verb, **given):
    def change(cloud):
        getattr(cloud.boto("iam"), verb)(**given)

    return change


def remove_role(cloud):
    cloud.boto("iam").remove_role_from_instance_profile(
        InstanceProfileName="me-ec2-access-role", RoleName="me-ec2-access-role"
    )


def other_role(cloud):
    remove_role(cloud)
    cloud.boto("iam").add_role_to_instance_profile(
        InstanceProfileName="me-ec2-access-role", RoleName="me-kinesis-access-role"
    )


def s3(verb, **given):
    return lambda cloud: getattr(cloud.boto("s3"), verb)(Bucket=BUCKET, **given)


def ec2(verb, member, key):
    return lambda cloud: getattr(cloud.boto("ec2"), verb)(**{member: [cloud.state_value(key)]})


def free_address(cloud):
    address = cloud.boto("ec2").describe_addresses()["Addresses"][0]
    cloud.boto("ec2").disassociate_address(AssociationId=address["AssociationId"])
    return address


def release_address(cloud):
    cloud.boto("ec2").release_address(AllocationId=free_address(cloud)["AllocationId"])


def endpoint_without_table(cloud):
    ec2 = cloud.boto("ec2")
    endpoint = ec2.describe_vpc_endpoints()["VpcEndpoints"][0]
    ec2.modify_vpc_endpoint(
        VpcEndpointId=endpoint["VpcEndpointId"], RemoveRouteTableIds=endpoint["RouteTableIds"]
    )


def endpoint_gone(cloud):
    ec2 = cloud.boto("ec2")
    ec2.delete_vpc_endpoints(
        VpcEndpointIds=[
            endpoint["VpcEndpointId"] for endpoint in ec2.describe_vpc_endpoints()["VpcEndpoints"]
        ]
    )


def topic_gone(cloud):
    next(iter(cloud.aws_service("kafka").clusters.values())).topics.pop("me.geo")


def connector(cloud):
    connect = cloud.boto("kafkaconnect")
    arn = connect.list_connectors()["connectors"][0]["connectorArn"]
    found = connect.describe_connector(connectorArn=arn)
    return connect, {"connectorArn": arn, "currentVersion": found["currentVersion"]}, found


def connector_properties(cloud):
    connect, named, found = connector(cloud)
    connect.update_connector(
        **named,
        connectorConfiguration={**found["connectorConfiguration"], "flush.size": "5", "more": "x"},
    )


def connector_capacity(cloud):
    connect, named, _ = connector(cloud)
    connect.update_connector(
        **named, capacity={"provisionedCapacity": {"mcuCount": 4, "workerCount": 2}}
    )


def connector_gone(cloud):
    connect, named, _ = connector(cloud)
    connect.delete_connector(**named)
    assert connect.list_connectors()["connectors"] == []


def kinesis(verb, **given):
    return lambda cloud: getattr(cloud.boto("kinesis"), verb)(
        StreamName="streaming-me-geo", **given
    )


def stream_on_demand(cloud):
    cloud.boto("kinesis").update_stream_mode(
        StreamARN=cloud.state_value("stream-geo", "arn"),
        StreamModeDetails={"StreamMode": "ON_DEMAND"},
    )


def stream_gone(cloud):
    cloud.boto("kinesis").delete_stream(StreamName="streaming-me-geo")
    cloud.boto("kinesis").list_streams()


def of_api(verb, path, method, patches=(), **given):
    """Returns a change that calls an operation on one method of the API."""

    def change(cloud):
        gateway, api = cloud.boto("apigateway"), cloud.state_value("api")
        resources = {
            each["path"]: each["id"]
            for each in gateway.get_resources(restApiId=api, limit=500)["items"]
        }
        operations = (
            {
                "patchOperations": [
                    {"op": "replace", "path": name, "value": value} for name, value in patches
                ]
            }
            if patches
            else {}
        )
        getattr(gateway, verb)(
            restApiId=api, resourceId=resources[path], httpMethod=method, **operations, **given
        )

    return change


def path_gone(cloud):
    gateway, api = cloud.boto("apigateway"), cloud.state_value("api")
    found = next(
        each
        for each in gateway.get_resources(restApiId=api, limit=500)["items"]
        if each["path"] == "/streams"
    )
    gateway.delete_resource(restApiId=api, resourceId=found["id"])


def deployed_by_others(cloud):
    cloud.boto("apigateway").create_deployment(
        restApiId=cloud.state_value("api"), stageName="prod", description="by hand"
    )


def untag_stage(cloud):
    arn = f"arn:aws:apigateway:us-east-1::/restapis/{cloud.state_value('api')}/stages/prod"
    cloud.boto("apigateway").untag_resource(resourceArn=arn, tagKeys=["team"])


def stage_gone(cloud):
    cloud.boto("apigateway").delete_stage(restApiId=cloud.state_value("api"), stageName="prod")


def api_gone(cloud):
    plan_without_stage(cloud)
    cloud.boto("apigateway").delete_rest_api(restApiId=cloud.state_value("api"))


def key_off(cloud):
    cloud.boto("apigateway").update_api_key(
        apiKey=cloud.state_value("api-key"),
        patchOperations=[{"op": "replace", "path": "/enabled", "value": "false"}],
    )


def key_gone(cloud):
    cloud.boto("apigateway").delete_api_key(apiKey=cloud.state_value("api-key"))


def plan_without_stage(cloud):
    patch = {"op": "remove", "path": "/apiStages", "value": f"{cloud.state_value('api')}:prod"}
    cloud.boto("apigateway").update_usage_plan(
        usagePlanId=cloud.state_value("usage-plan"), patchOperations=[patch]
    )


def plan_without_key(cloud):
    cloud.boto("apigateway").delete_usage_plan_key(
        usagePlanId=cloud.state_value("usage-plan"), keyId=cloud.state_value("api-key")
    )


def plan_gone(cloud):
    plan_without_stage(cloud)
    cloud.boto("apigateway").delete_usage_plan(usagePlanId=cloud.state_value("usage-plan"))


PROXY, RECORD, STREAM = "/{proxy+}", "/streams/{stream-name}/record", "/streams/{stream-name}"


HEADER = "/requestParameters/integration.request.header.Authorization"


NAMED = {"RoleName": "me-connector-role", "PolicyName": "pinpipe"}


SHARDS = {"TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"}


BLOCK = {
    "PublicAccessBlockConfiguration": {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": False,
        "RestrictPublicBuckets": True,
    }
}


GONE = "does not exist"


DRIFT = {
    "cluster rule gone": (
        {"group-cluster": ("update", "the rule `all traffic from sg-.*` is missing")},
        revoke_rule("group-cluster"),
    ),
    "proxy rule gone": (
        {"group-client": ("update", "the rule `port 8082 from .*` is missing")},
        revoke_rule("group-client"),
    ),
    "endpoint without a table": (
        {"s3-endpoint": ("update", "route table `rtb-.*` does not use the endpoint")},
        endpoint_without_table,
    ),
    "endpoint gone": ({"s3-endpoint": ("create", GONE)}, endpoint_gone),
    "policy changed": (
        {"role-connector": ("update", "policy `pinpipe` differs")},
        role("put_role_policy", **NAMED, PolicyDocument=json.dumps(ALL)),
    ),
    "policy gone": (
        {"role-connector": ("update", "policy `pinpipe` is missing")},
        role("delete_role_policy", **NAMED),
    ),
    "trust changed": (
        {"role-kinesis": ("update", "trust policy differs")},
        role(
            "update_assume_role_policy",
            RoleName="me-kinesis-access-role",
            PolicyDocument=json.dumps(TRUST),
        ),
    ),
    "profile with another role": (
        {"instance-profile": ("update", "`me-ec2-access-role` is not in the instance profile")},
        other_role,
    ),
    "public access block gone": (
        {"bucket": ("update", "public access is not blocked")},
        s3("delete_public_access_block"),
    ),
    "public access block halved": (
        {"bucket": ("update", "public access is not blocked")},
        s3("put_public_access_block", **BLOCK),
    ),
    "encryption gone": ({"bucket": ("update", "not encrypted")}, s3("delete_bucket_encryption")),
    "plugin object replaced": (
        {"plugin-object": ("update", "the object differs from `sink.zip`")},
        s3("put_object", Key=OBJECT, Body=b"PK another"),
    ),
    "plugin object gone": ({"plugin-object": ("create", GONE)}, s3("delete_object", Key=OBJECT)),
    "address free": (
        {"address": ("update", "is not associated with the client machine")},
        free_address,
    ),
    "topic gone": ({"topic-geo": ("create", GONE)}, topic_gone),
    "connector properties": (
        {"connector": ("update", "properties differ: flush.size, more")},
        connector_properties,
    ),
    "connector capacity": (
        {"connector": ("update", "2 workers of 4 MCU → 1 of 1")},
        connector_capacity,
    ),
    "connector gone": ({"connector": ("create", GONE)}, connector_gone),
    "stream retention": (
        {"stream-geo": ("update", "retention_hours: 48 → 24")},
        kinesis("increase_stream_retention_period", RetentionPeriodHours=48),
    ),
    "stream shards": (
        {"stream-geo": ("update", "shards: 4 → 2")},
        kinesis("update_shard_count", **SHARDS),
    ),
    "stream on demand": ({"stream-geo": ("update", "not PROVISIONED")}, stream_on_demand),
    "stream gone": ({"stream-geo": ("create", GONE)}, stream_gone),
    "api to an old address": (
        {"api": ("update", r"ANY /\{proxy\+\} integration URI: http://198.51.100.7:8082")},
        of_api("update_integration", PROXY, "ANY", [("/uri", "http://198.51.100.7:8082/{proxy}")]),
    ),
    "api without a key": (
        {"api": ("update", "PUT .*/record has a different authorization")},
        of_api("update_method", RECORD, "PUT", [("/apiKeyRequired", "false")]),
    ),
    "method gone": (
        {"api": ("update", r"DELETE /streams/\{stream-name\} is missing")},
        of_api("delete_method", STREAM, "DELETE"),
    ),
    "integration gone": (
        {"api": ("update", "PUT .*/record has no integration")},
        of_api("delete_integration", RECORD, "PUT"),
    ),
    "path gone": (
        {"api": ("update", "GET /streams is missing; .*PUT .*/records is missing")},
        path_gone,
    ),
    "authorization header": (
        {"api": ("update", "passes different parameters to the integration")},
        of_api("update_integration", PROXY, "ANY", [(HEADER, "'Basic bm9ib2R5'")]),
    ),
    "template": (
        {"api": ("update", "has a different request mapping")},
        of_api(
            "update_integration", RECORD, "PUT", [("/requestTemplates/application~1json", "{}")]
        ),
    ),
    "answers": (
        {"api": ("update", "has a different response mapping")},
        of_api("delete_integration_response", RECORD, "PUT", statusCode="400"),
    ),
    "deployed by others": (
        {"api": ("update", "stage `prod` serves a different definition")},
        deployed_by_others,
    ),
    "key off": ({"api-key": ("update", "the API key is disabled")}, key_off),
    "key gone": (
        {"api-key": ("create", GONE), "usage-plan": ("update", "key is not in the usage plan")},
        key_gone,
    ),
    "plan without its stage": (
        {"usage-plan": ("update", "stage is not in the usage plan")},
        plan_without_stage,
    ),
    "plan without its key": (
        {"usage-plan": ("update", "key is not in the usage plan")},
        plan_without_key,
    ),
    "plan gone": ({"usage-plan": ("create", GONE)}, plan_gone),
    "stage without its tags": (
        {"api": ("update", "^stage `prod`: tag `team` is missing$")},
        untag_stage,
    ),
    "stage gone": (
        {
            "api": ("update", "not deployed to the stage `prod`"),
            "usage-plan": ("update", "stage is not in the usage plan"),
        },
        stage_gone,
    ),
}


def retag(cloud, tags):
    """Puts a tag on every resource, or removes `team` from every resource."""
    pairs = [{"Key": "team", "Value": tags["team"]}] if tags else [{"Key": "team"}]
    boto, state_value = cloud.boto, cloud.state_value
    ec2, found = boto("ec2"), boto("ec2").describe_key_pairs()["KeyPairs"]
    ids = [
        *map(state_value, ("group-client", "group-cluster", "client", "address")),
        found[0]["KeyPairId"],
        boto("ec2").describe_vpc_endpoints()["VpcEndpoints"][0]["VpcEndpointId"],
    ]
    (ec2.create_tags if tags else ec2.delete_tags)(Resources=ids, Tags=pairs)
    given = {"Tags": pairs} if tags else {"TagKeys": ["team"]}
    for name in ("ec2-access-role", "connector-role", "kinesis-access-role"):
        getattr(boto("iam"), "tag_role" if tags else "untag_role")(RoleName=f"me-{name}", **given)
    getattr(boto("iam"), "tag_instance_profile" if tags else "untag_instance_profile")(
        InstanceProfileName="me-ec2-access-role", **given
    )
    kept = [
        each
        for each in boto("s3").get_bucket_tagging(Bucket=BUCKET)["TagSet"]
        if each["Key"] != "team"
    ]
    boto("s3").put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": kept + (pairs if tags else [])})
    verb = "tag_resource" if tags else "untag_resource"
    getattr(boto("kafka"), verb)(
        ResourceArn=state_value("cluster", "arn"), **({"Tags": tags} if tags else given)
    )
    for key in ("plugin", "worker-configuration", "connector"):
        getattr(boto("kafkaconnect"), verb)(
            resourceArn=state_value(key, "arn"),
            **({"tags": tags} if tags else {"tagKeys": ["team"]}),
        )
    for kind in ("pin", "geo", "user"):
        getattr(boto("kinesis"), "add_tags_to_stream" if tags else "remove_tags_from_stream")(
            StreamName=f"streaming-me-{kind}", **({"Tags": tags} if tags else given)
        )
    for path in (
        f"restapis/{state_value('api')}",
        f"restapis/{state_value('api')}/stages/prod",
        f"apikeys/{state_value('api-key')}",
        f"usageplans/{state_value('usage-plan')}",
    ):
        getattr(boto("apigateway"), verb)(
            resourceArn=f"arn:aws:apigateway:us-east-1::/{path}",
            **({"tags": tags} if tags else {"tagKeys": ["team"]}),
        )

"""Deployments of an API and the stages that show them."""

import copy

from . import patches
from .service import now, random_id, refuse

SETTINGS = {
    "logging/loglevel": ("loggingLevel", str),
    "logging/dataTrace": ("dataTraceEnabled", bool),
    "metrics/enabled": ("metricsEnabled", bool),
    "throttling/burstLimit": ("throttlingBurstLimit", int),
    "throttling/rateLimit": ("throttlingRateLimit", float),
    "caching/enabled": ("cachingEnabled", bool),
    "caching/ttlInSeconds": ("cacheTtlInSeconds", int),
    "caching/dataEncrypted": ("cacheDataEncrypted", bool),
}
PLAIN = {
    "metricsEnabled": False,
    "dataTraceEnabled": False,
    "cachingEnabled": False,
    "cacheTtlInSeconds": 300,
    "cacheDataEncrypted": False,
    "requireAuthorizationForCacheControl": True,
    "unauthorizedCacheControlHeaderStrategy": "SUCCEED_WITH_RESPONSE_HEADER",
}


def tree_of(api):
    """Returns everything of an API that a deployment fixes."""
    return {
        resource.path: copy.deepcopy(resource.methods)
        for resource in api.resources.values()
        if resource.methods
    }


class Stages:
    """Operations on deployments and stages."""

    def do_create_deployment(self, call):
        api, given = self.api_of(call), call.parameters
        tree = tree_of(api)
        if not tree:
            raise refuse("BadRequestException", "The REST API doesn't contain any methods")
        if not all(
            "methodIntegration" in method
            for methods in tree.values()
            for method in methods.values()
        ):
            raise refuse("BadRequestException", "No integration defined for method")
        deployment = {
            "id": random_id(6, "abcdefghijklmnopqrstuvwxyz0123456789"),
            "createdDate": now(),
        }
        if "description" in given:
            deployment["description"] = given["description"]
        api.deployments[deployment["id"]] = (deployment, tree)
        if given.get("stageName"):
            stage = api.stages.get(given["stageName"])
            if stage:
                stage |= {"deploymentId": deployment["id"], "lastUpdatedDate": now()}
            else:
                self.new_stage(
                    api,
                    given["stageName"],
                    deployment["id"],
                    {
                        "description": given.get("stageDescription"),
                        "tracingEnabled": given.get("tracingEnabled"),
                    },
                )
            if "variables" in given:
                api.stages[given["stageName"]]["variables"] = dict(given["variables"])
        return dict(deployment)

    def new_stage(self, api, name, deployment, more):
        stage = {
            "stageName": name,
            "deploymentId": deployment,
            "createdDate": now(),
            "lastUpdatedDate": now(),
            "cacheClusterEnabled": False,
            "cacheClusterStatus": "NOT_AVAILABLE",
            "methodSettings": {},
            "tracingEnabled": False,
        }
        stage.update({name: value for name, value in more.items() if value is not None})
        api.stages[name] = stage
        return stage

    def deployment_of(self, api, name):
        if name not in api.deployments:
            raise refuse("NotFoundException", "Invalid Deployment identifier specified")
        return api.deployments[name]

    def summary(self, tree):
        return {
            path: {
                verb: {
                    "authorizationType": method["authorizationType"],
                    "apiKeyRequired": method["apiKeyRequired"],
                }
                for verb, method in methods.items()
            }
            for path, methods in tree.items()
        }

    def do_get_deployment(self, call):
        deployment, tree = self.deployment_of(self.api_of(call), call.parameters["deploymentId"])
        return {
            **deployment,
            **(
                {"apiSummary": self.summary(tree)}
                if "apisummary" in call.parameters.get("embed", [])
                else {}
            ),
        }

    def do_get_deployments(self, call):
        return self.page_of(
            call, [dict(deployment) for deployment, _ in self.api_of(call).deployments.values()]
        )

    def do_update_deployment(self, call):
        deployment, _ = self.deployment_of(self.api_of(call), call.parameters["deploymentId"])
        patches.apply(deployment, call.parameters.get("patchOperations"), {"description": str})
        return dict(deployment)

    def do_delete_deployment(self, call):
        api = self.api_of(call)
        self.deployment_of(api, call.parameters["deploymentId"])
        if any(
            stage["deploymentId"] == call.parameters["deploymentId"]
            for stage in api.stages.values()
        ):
            raise refuse(
                "BadRequestException",
                "Active stages pointing to this deployment must be moved or deleted",
            )
        del api.deployments[call.parameters["deploymentId"]]

    def stage_of(self, call):
        api = self.api_of(call)
        if call.parameters["stageName"] not in api.stages:
            raise refuse("NotFoundException", "Invalid stage identifier specified")
        return api, api.stages[call.parameters["stageName"]]

    def do_create_stage(self, call):
        api, given = self.api_of(call), call.parameters
        self.deployment_of(api, given["deploymentId"])
        if given["stageName"] in api.stages:
            raise refuse("ConflictException", "Stage already exists")
        more = {
            name: copy.deepcopy(given[name])
            for name in ("description", "variables", "tracingEnabled", "tags")
            if name in given
        }
        return copy.deepcopy(self.new_stage(api, given["stageName"], given["deploymentId"], more))

    def do_get_stage(self, call):
        return copy.deepcopy(self.stage_of(call)[1])

    def do_get_stages(self, call):
        return {"item": copy.deepcopy(list(self.api_of(call).stages.values()))}

    def do_update_stage(self, call):
        api, stage = self.stage_of(call)
        changed, plain = copy.deepcopy(stage), []
        for each in call.parameters.get("patchOperations", []):
            steps = patches.steps_of(each.get("path", ""))
            if len(steps) >= 4 and "/".join(steps[-2:]) in SETTINGS:
                member, kind = SETTINGS["/".join(steps[-2:])]
                settings = changed["methodSettings"].setdefault("/".join(steps[:-2]), dict(PLAIN))
                settings[member] = patches.typed(each.get("value"), kind)
            elif (
                len(steps) == 2
                and each.get("op") == "remove"
                and "/".join(steps) in changed["methodSettings"]
            ):
                del changed["methodSettings"]["/".join(steps)]
            else:
                plain.append(each)
        patches.apply(
            changed,
            plain,
            {"deploymentId": str, "description": str, "tracingEnabled": bool},
            ("variables",),
        )
        self.deployment_of(api, changed["deploymentId"])
        changed["lastUpdatedDate"] = now()
        api.stages[changed["stageName"]] = changed
        return copy.deepcopy(changed)

    def do_delete_stage(self, call):
        api, stage = self.stage_of(call)
        for plan in self.plans.values():
            plan.settings["apiStages"] = [
                each
                for each in plan.settings.get("apiStages", [])
                if (each["apiId"], each["stage"]) != (api.id, stage["stageName"])
            ]
        del api.stages[stage["stageName"]]

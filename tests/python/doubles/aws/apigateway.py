"""REST APIs of API Gateway: APIs, their resources, and the stores that the modules of the service
share.
"""

import copy
import re

from . import patches
from .apigateway_keys import Keys
from .apigateway_methods import Methods
from .apigateway_stages import Stages
from .service import Service, now, random_id, refuse

PATH_PART = re.compile(r"[a-zA-Z0-9._:-]+|\{[a-zA-Z0-9._-]+\+?\}")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
API_SCALARS = {
    "name": str,
    "description": str,
    "apiKeySource": str,
    "policy": str,
    "minimumCompressionSize": int,
    "disableExecuteApiEndpoint": bool,
}


class Resource:
    """One resource of an API."""

    def __init__(self, parent, part, path):
        self.id = random_id(6, LETTERS)
        self.parent = parent
        self.part = part
        self.path = path
        self.methods = {}

    def shown(self, embed=True):
        shown = {"id": self.id, "path": self.path}
        if self.parent:
            shown |= {"parentId": self.parent.id, "pathPart": self.part}
        if self.methods:
            shown["resourceMethods"] = {
                verb: copy.deepcopy(method) if embed else {}
                for verb, method in self.methods.items()
            }
        return shown


class Api:
    """One REST API."""

    def __init__(self, region, settings):
        self.id = random_id(10, LETTERS)
        self.region = region
        self.settings = settings
        self.tags = settings.pop("tags", {})
        self.created = now()
        root = Resource(None, "", "/")
        root.id = random_id(10, LETTERS)
        self.root = root
        self.resources = {root.id: root}
        self.deployments = {}
        self.stages = {}

    def shown(self):
        shown = {
            **copy.deepcopy(self.settings),
            "id": self.id,
            "createdDate": self.created,
            "rootResourceId": self.root.id,
        }
        return shown | ({"tags": dict(self.tags)} if self.tags else {})


class ApiGateway(Methods, Stages, Keys, Service):
    """API Gateway."""

    name = "apigateway"

    def reset(self):
        self.apis, self.keys, self.plans = {}, {}, {}

    def page_of(self, call, items):
        """Returns one page of items, in the form of this service."""
        page, position = self.page(
            items, call.parameters.get("limit"), call.parameters.get("position"), default=25
        )
        return {"items": page, "position": position}

    def api_of(self, call):
        api = self.apis.get(call.parameters["restApiId"])
        if not api or api.region != call.region:
            raise refuse(
                "NotFoundException",
                f"Invalid API identifier specified 123456789012:{call.parameters['restApiId']}",
            )
        return api

    def in_region(self, table, call):
        return [thing for thing in table.values() if thing.region == call.region]

    def do_create_rest_api(self, call):
        settings = copy.deepcopy(call.parameters)
        if not settings["name"].strip():
            raise refuse("BadRequestException", "API name is invalid")
        settings.setdefault("apiKeySource", "HEADER")
        settings.setdefault("endpointConfiguration", {}).setdefault("types", ["EDGE"])
        settings["endpointConfiguration"].setdefault("ipAddressType", "ipv4")
        settings.setdefault("disableExecuteApiEndpoint", False)
        api = Api(call.region, settings)
        self.apis[api.id] = api
        return api.shown()

    def do_get_rest_api(self, call):
        return self.api_of(call).shown()

    def do_get_rest_apis(self, call):
        return self.page_of(call, [api.shown() for api in self.in_region(self.apis, call)])

    def do_update_rest_api(self, call):
        api, operations = self.api_of(call), []
        for each in call.parameters.get("patchOperations", []):
            steps = patches.steps_of(each.get("path", ""))
            if steps[:2] == ["endpointConfiguration", "types"] and each.get("op") == "replace":
                api.settings["endpointConfiguration"]["types"] = [each["value"]]
            elif steps == ["endpointConfiguration", "ipAddressType"]:
                api.settings["endpointConfiguration"]["ipAddressType"] = each["value"]
            else:
                operations.append(each)
        patches.apply(api.settings, operations, API_SCALARS, lists=("binaryMediaTypes",))
        return api.shown()

    def do_delete_rest_api(self, call):
        api = self.api_of(call)
        for plan in self.plans.values():
            plan.settings["apiStages"] = [
                stage for stage in plan.settings.get("apiStages", []) if stage["apiId"] != api.id
            ]
        del self.apis[api.id]

    # Resources.

    def resource_of(self, call, member="resourceId"):
        api = self.api_of(call)
        resource = api.resources.get(call.parameters[member])
        if not resource:
            raise refuse("NotFoundException", "Invalid Resource identifier specified")
        return api, resource

    def do_get_resources(self, call):
        api = self.api_of(call)
        embed = "methods" in call.parameters.get("embed", [])
        return self.page_of(call, [resource.shown(embed) for resource in api.resources.values()])

    def do_get_resource(self, call):
        return self.resource_of(call)[1].shown("methods" in call.parameters.get("embed", []))

    def do_create_resource(self, call):
        api, parent = self.resource_of(call, "parentId")
        part = call.parameters["pathPart"]
        if not PATH_PART.fullmatch(part):
            raise refuse(
                "BadRequestException",
                (
                    "Resource's path part only allow a-zA-Z0-9._-: or a valid greedy path "
                    "variable and curly braces at the beginning and the end."
                ),
            )
        if parent.part.endswith("+}"):
            raise refuse(
                "BadRequestException",
                f"Cannot create a child of a resource with a greedy path variable: {parent.path}",
            )
        for sibling in api.resources.values():
            if sibling.parent is parent:
                if sibling.part == part:
                    raise refuse(
                        "ConflictException",
                        f"Another resource with the same parent already has this name: {part}",
                    )
                if sibling.part.startswith("{") and part.startswith("{"):
                    raise refuse(
                        "BadRequestException",
                        (
                            f"A sibling ({sibling.part}) of this resource already has a variable path "  # noqa: E501
                            "part -- only one is allowed"
                        ),
                    )
        resource = Resource(parent, part, f"{parent.path.rstrip('/')}/{part}")
        api.resources[resource.id] = resource
        return resource.shown()

    def do_delete_resource(self, call):
        api, resource = self.resource_of(call)
        if resource is api.root:
            raise refuse("BadRequestException", "The root resource cannot be deleted")

        def inside(other):
            return other is resource or (other.parent is not None and inside(other.parent))

        api.resources = {name: other for name, other in api.resources.items() if not inside(other)}

    # Tags.

    def tagged(self, call):
        """Returns the tags of the resource of an ARN."""
        path = call.parameters["resourceArn"].partition("::/")[2].split("/")
        kind, name = path[0], path[1] if len(path) > 1 else ""
        table = {"restapis": self.apis, "apikeys": self.keys, "usageplans": self.plans}.get(
            kind, {}
        )
        if name not in table:
            raise refuse(
                "NotFoundException",
                f"Invalid Resource identifier specified: {call.parameters['resourceArn']}",
            )
        if kind == "restapis" and path[2:3] == ["stages"]:
            if path[3] not in table[name].stages:
                raise refuse("NotFoundException", "Invalid stage identifier specified")
            return table[name].stages[path[3]].setdefault("tags", {})
        return table[name].tags

    def do_tag_resource(self, call):
        self.tagged(call).update(call.parameters["tags"])

    def do_untag_resource(self, call):
        tags = self.tagged(call)
        for key in call.parameters["tagKeys"]:
            tags.pop(key, None)

    def do_get_tags(self, call):
        return {"tags": dict(self.tagged(call))}

"""The methods of a resource, their integrations, and the responses of both."""

import copy
import re

from . import patches
from .service import refuse

VERBS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "ANY")
AUTHORIZATIONS = ("NONE", "AWS_IAM", "CUSTOM", "COGNITO_USER_POOLS")
PLACES = ("restApiId", "resourceId", "httpMethod", "statusCode")
METHOD_SCALARS = {
    "apiKeyRequired": bool,
    "authorizationType": str,
    "authorizerId": str,
    "operationName": str,
    "requestValidatorId": str,
}
INTEGRATION_SCALARS = {
    "uri": str,
    "httpMethod": str,
    "credentials": str,
    "passthroughBehavior": str,
    "contentHandling": str,
    "timeoutInMillis": int,
    "connectionType": str,
    "connectionId": str,
    "cacheNamespace": str,
    "type": str,
}
BEHAVIOURS = ("WHEN_NO_MATCH", "WHEN_NO_TEMPLATES", "NEVER")


class Methods:
    """Operations on methods and integrations."""

    def method_of(self, call):
        _, resource = self.resource_of(call)
        method = resource.methods.get(call.parameters["httpMethod"])
        if method is None:
            raise refuse("NotFoundException", "Invalid Method identifier specified")
        return resource, method

    def integration_of(self, call):
        _, method = self.method_of(call)
        if "methodIntegration" not in method:
            raise refuse("NotFoundException", "Invalid Integration identifier specified")
        return method["methodIntegration"]

    def body_of(self, call):
        """Returns the members of a request without those that identify its target."""
        return {
            name: copy.deepcopy(value)
            for name, value in call.parameters.items()
            if name not in PLACES
        }

    def do_put_method(self, call):
        _, resource = self.resource_of(call)
        verb, settings = call.parameters["httpMethod"], self.body_of(call)
        if verb not in VERBS:
            raise refuse(
                "BadRequestException",
                f"Invalid HTTP method specified: {verb}. Must be one of: {list(VERBS)}",
            )
        if settings["authorizationType"] not in AUTHORIZATIONS:
            raise refuse(
                "BadRequestException",
                f"Invalid Authorization type: {settings['authorizationType']}",
            )
        if verb in resource.methods:
            raise refuse("ConflictException", "Method already exists for this resource")
        self.check_path_parameters(resource, settings.get("requestParameters", {}))
        settings.setdefault("apiKeyRequired", False)
        resource.methods[verb] = {"httpMethod": verb, **settings}
        return copy.deepcopy(resource.methods[verb])

    def check_path_parameters(self, resource, parameters):
        for name in parameters:
            if not re.fullmatch(r"method\.request\.(path|querystring|header)\.[\w.\-$]+", name):
                raise refuse(
                    "BadRequestException",
                    (
                        "Invalid mapping expression specified: Validation Result: warnings : [], "
                        f"errors : [Invalid mapping expression parameter specified: {name}]"
                    ),
                )

    def do_get_method(self, call):
        return copy.deepcopy(self.method_of(call)[1])

    def do_update_method(self, call):
        resource, method = self.method_of(call)
        patches.apply(
            method,
            call.parameters.get("patchOperations"),
            METHOD_SCALARS,
            {"requestParameters": bool, "requestModels": str},
            ("authorizationScopes",),
        )
        self.check_path_parameters(resource, method.get("requestParameters", {}))
        return copy.deepcopy(method)

    def do_delete_method(self, call):
        resource, method = self.method_of(call)
        del resource.methods[method["httpMethod"]]

    def do_put_method_response(self, call):
        _, method = self.method_of(call)
        status = call.parameters["statusCode"]
        if status in method.get("methodResponses", {}):
            raise refuse("ConflictException", "Response already exists for this resource")
        answer = {"statusCode": status, **self.body_of(call)}
        method.setdefault("methodResponses", {})[status] = answer
        return copy.deepcopy(answer)

    def response_of(self, holder, member, call):
        found = holder.get(member, {}).get(call.parameters["statusCode"])
        if not found:
            raise refuse("NotFoundException", "Invalid Response status code specified")
        return found

    def do_get_method_response(self, call):
        return copy.deepcopy(self.response_of(self.method_of(call)[1], "methodResponses", call))

    def do_update_method_response(self, call):
        answer = self.response_of(self.method_of(call)[1], "methodResponses", call)
        patches.apply(
            answer,
            call.parameters.get("patchOperations"),
            {},
            {"responseParameters": bool, "responseModels": str},
        )
        return copy.deepcopy(answer)

    def do_delete_method_response(self, call):
        method = self.method_of(call)[1]
        del method["methodResponses"][
            self.response_of(method, "methodResponses", call)["statusCode"]
        ]

    def do_put_integration(self, call):
        resource, method = self.method_of(call)
        settings = self.body_of(call)
        settings["httpMethod"] = settings.pop("integrationHttpMethod", None)
        if settings["httpMethod"] is None:
            del settings["httpMethod"]
        settings.setdefault("passthroughBehavior", "WHEN_NO_MATCH")
        settings.setdefault("timeoutInMillis", 29000)
        settings.setdefault("cacheNamespace", resource.id)
        settings.setdefault("cacheKeyParameters", [])
        if settings["type"] in ("HTTP", "HTTP_PROXY"):
            settings.setdefault("connectionType", "INTERNET")
        self.check_integration(call, resource, method, settings)
        # A new integration replaces the old one and its responses.
        method["methodIntegration"] = settings
        return copy.deepcopy(settings)

    def check_integration(self, call, resource, method, settings):
        """Raises the errors of API Gateway about an integration."""
        kind, uri, verb = settings["type"], settings.get("uri", ""), settings.get("httpMethod")
        if kind != "MOCK" and not verb:
            raise refuse(
                "BadRequestException", "Enumeration value for HttpMethod must be non-empty"
            )
        if verb and verb not in VERBS:
            raise refuse("BadRequestException", f"Invalid HTTP method specified: {verb}")
        if kind in ("HTTP", "HTTP_PROXY") and not re.fullmatch(
            r"https?://[^\s/:]+(:\d+)?(/\S*)?", uri
        ):
            raise refuse("BadRequestException", "Invalid HTTP endpoint specified for URI")
        if kind in ("AWS", "AWS_PROXY"):
            if not re.fullmatch(
                rf"arn:aws:apigateway:{call.region}:[\w.-]+:(action|path)/\S+", uri
            ):
                raise refuse("BadRequestException", "Invalid ARN specified in the request")
            self.check_credentials(settings.get("credentials"), ":lambda:" in uri)
        if not 50 <= settings["timeoutInMillis"] <= 29000:
            raise refuse("BadRequestException", "Timeout should be between 50 ms and 29000 ms")
        if settings["passthroughBehavior"] not in BEHAVIOURS:
            raise refuse(
                "BadRequestException",
                f"Invalid passthrough behavior specified: {settings['passthroughBehavior']}",
            )
        for target, source in settings.get("requestParameters", {}).items():
            where = re.fullmatch(r"integration\.request\.(path|querystring|header)\.(\S+)", target)
            known = re.fullmatch(
                r"method\.request\.(path|querystring|header|body)\.?\S*|context\.\S+|stageVariables\.\S+|'[^']*'",
                source,
            )
            if not where or not known:
                raise refuse(
                    "BadRequestException",
                    (
                        "Invalid mapping expression specified: Validation Result: warnings : [], "
                        f"errors : [Invalid mapping expression specified: {target} from {source}]"
                    ),
                )
            if source.startswith("method.request.path."):
                name = source.removeprefix("method.request.path.")
                declared = source in method.get("requestParameters", {}) or name in re.findall(
                    r"\{([^}+]+)\+?\}", resource.path
                )
                if not declared:
                    raise refuse(
                        "BadRequestException", f"Invalid mapping expression specified: {source}"
                    )

    def check_credentials(self, arn, optional):
        if not arn and optional:
            return
        if not arn:
            raise refuse("BadRequestException", "Role ARN must be specified for AWS integrations")
        if not any(
            role.arn == arn for role in self.aws.bridge.store("iam").roles.values()
        ) and not arn.startswith("arn:aws:iam::*:"):
            raise refuse(
                "BadRequestException",
                "The role ARN does not have required permissions or does not exist",
            )

    def do_get_integration(self, call):
        return copy.deepcopy(self.integration_of(call))

    def do_update_integration(self, call):
        resource, method = self.method_of(call)
        integration = self.integration_of(call)
        changed = copy.deepcopy(integration)
        patches.apply(
            changed,
            call.parameters.get("patchOperations"),
            INTEGRATION_SCALARS,
            {"requestParameters": str, "requestTemplates": str},
            ("cacheKeyParameters",),
        )
        self.check_integration(call, resource, method, changed)
        method["methodIntegration"] = changed
        return copy.deepcopy(changed)

    def do_delete_integration(self, call):
        self.integration_of(call)
        del self.method_of(call)[1]["methodIntegration"]

    def do_put_integration_response(self, call):
        integration, method = self.integration_of(call), self.method_of(call)[1]
        self.response_of(method, "methodResponses", call)
        status = call.parameters["statusCode"]
        answer = {"statusCode": status, **self.body_of(call)}
        integration.setdefault("integrationResponses", {})[status] = answer
        return copy.deepcopy(answer)

    def do_get_integration_response(self, call):
        return copy.deepcopy(
            self.response_of(self.integration_of(call), "integrationResponses", call)
        )

    def do_update_integration_response(self, call):
        answer = self.response_of(self.integration_of(call), "integrationResponses", call)
        patches.apply(
            answer,
            call.parameters.get("patchOperations"),
            {"selectionPattern": str, "contentHandling": str},
            {"responseParameters": str, "responseTemplates": str},
        )
        return copy.deepcopy(answer)

    def do_delete_integration_response(self, call):
        integration = self.integration_of(call)
        del integration["integrationResponses"][
            self.response_of(integration, "integrationResponses", call)["statusCode"]
        ]

"""Errors of Databricks."""


class Refused(Exception):
    """A response with an error code."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status = status
        self.body = {"error_code": code, "message": message}


def invalid(message):
    return Refused(400, "INVALID_PARAMETER_VALUE", message)


def missing(message):
    return Refused(404, "RESOURCE_DOES_NOT_EXIST", message)

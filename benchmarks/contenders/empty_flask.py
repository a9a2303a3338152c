"""The floor of a function as functions-framework serves it."""

import flask


def dataconnector_endpoint(_request: flask.Request) -> str:
    """Acknowledge and do nothing."""
    return "OK"

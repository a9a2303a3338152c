"""An empty Flask function: the cost of functions-framework itself."""

import flask


def dataconnector_endpoint(_request: flask.Request) -> str:
    """Acknowledge and do nothing."""
    return "OK"

"""The ways in which a delivery is not acknowledged: each has its status, its outcome and its answer."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any


class Refusal(Exception):
    """Base of all errors that end a delivery; the sender counts it as an error and tries again.

    Attributes:
        status: the HTTP status of the answer.
        outcome: the word for it in the log.
        answer: the text of the answer. It is fixed, so that it never repeats any part of the request.
        reason: what the log says; never a secret, a token or a body.
    """

    status: HTTPStatus
    outcome: str
    answer: str

    def __init__(self, reason: str) -> None:
        """Set the reason for the log."""
        super().__init__(reason)
        self.reason = reason


class WrongMethod(Refusal):
    """Raised if the request is not a POST."""

    status, outcome, answer = HTTPStatus.METHOD_NOT_ALLOWED, "method", "Only POST is allowed."


class TooLarge(Refusal):
    """Raised if the body exceeds the limit, whether or not its length was announced."""

    status, outcome, answer = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", "The body is too large."


class Unverified(Refusal):
    """Raised if the request does not prove its origin and its integrity."""

    status, outcome, answer = HTTPStatus.BAD_REQUEST, "unverified", "Could not verify request."


class Unprocessable(Refusal):
    """Raised if an authentic body is not a valid document.

    Its reason is also its answer, for the person who reads it in DT Studio, so it must not repeat the body.

    Attributes:
        fields: those of an event that has no valid `eventId`, for the log.
    """

    status, outcome = HTTPStatus.BAD_REQUEST, "quarantined"

    def __init__(self, reason: str, fields: Mapping[str, Any] | None = None) -> None:
        """Set the reason, which is also the answer, and the fields."""
        super().__init__(reason)
        self.answer = reason
        self.fields = fields or {}


class Unavailable(Refusal):
    """Raised if a service that the delivery needs did not confirm; a write may have been committed all the same."""

    status, outcome, answer = (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        "Temporarily unavailable, send again.",
    )


class Failed(Refusal):
    """Stands for any unforeseen exception."""

    status, outcome, answer = (
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "failed",
        "Something unforeseen happened, send again.",
    )

"""The ways in which a delivery can end other than well: each knows its status, its outcome and its answer."""

from http import HTTPStatus


class Refusal(Exception):
    """A delivery that is not acknowledged, so that the sender's Error counter shows it.

    Attributes:
        status: the HTTP status of the answer.
        outcome: the word for it in the log.
        answer: the text that the sender gets. Fixed, so that it can repeat nothing of the request.
        reason: what the log says; never a secret, a token or a body.
    """

    status: HTTPStatus
    outcome: str
    answer: str

    def __init__(self, reason: str) -> None:
        """Keep `reason` for the log."""
        super().__init__(reason)
        self.reason = reason


class WrongMethod(Refusal):
    """Raised if the request is not a POST."""

    status, outcome, answer = HTTPStatus.METHOD_NOT_ALLOWED, "method", "Only POST is allowed."


class TooLarge(Refusal):
    """Raised if the body exceeds the limit, announced or not."""

    status, outcome, answer = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", "The body is too large."


class Unverified(Refusal):
    """Raised if the request does not prove that it comes, unchanged, from a holder of the signature secret."""

    status, outcome, answer = HTTPStatus.BAD_REQUEST, "unverified", "Could not verify request."


class Unstorable(Refusal):
    """Raised if an authentic body can be no document.

    Its reason is also its answer, for the person who reads it in DT Studio; hence it must repeat nothing of the body.
    """

    status, outcome = HTTPStatus.BAD_REQUEST, "quarantined"

    def __init__(self, reason: str) -> None:
        """Answer with `reason`."""
        super().__init__(reason)
        self.answer = reason


class Unavailable(Refusal):
    """Raised if Firestore did not confirm the write; it may have happened, and the sender's retry settles it."""

    status, outcome, answer = (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        "Firestore is unavailable, send again.",
    )


class Failed(Refusal):
    """Stands for anything unforeseen."""

    status, outcome, answer = (
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "failed",
        "Something unforeseen happened, send again.",
    )

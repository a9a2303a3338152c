"""What DT's API answers when it refuses a request, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from disruptive import errors

from dtcloud.account import REFUSED

_REASONS: dict[type[Exception], str] = {
    errors.Unauthorized: REFUSED,
    errors.Forbidden: "DT forbids it: the service account needs the role Project Developer or higher in this project",
    errors.NotFound: "DT does not know the project, or the service account has no role in it",
    errors.ReadTimeout: "DT did not answer in time: it may have done what was asked; the next run shows it",
    errors.ConnectionError: "DT cannot be reached",
}


@contextmanager
def explained(kind: type[Exception]) -> Iterator[None]:
    """Raise each failure of a request to DT's API as an exception of this kind, whose text is one line."""
    try:
        yield
    except (errors.DTApiError, requests.RequestException) as error:
        known = (text for each, text in _REASONS.items() if isinstance(error, each))
        raise kind(next(known, f"DT's API refused the request ({type(error).__name__}): {error}")) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise kind(f"DT's answer cannot be read ({type(error).__name__})") from None

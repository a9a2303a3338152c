"""Signs in at DT's REST API, with the service account that the environment names."""

from collections.abc import Mapping

import disruptive
from disruptive.authentication import ServiceAccountAuth

VARIABLES = ("DT_SERVICE_ACCOUNT_KEY_ID", "DT_SERVICE_ACCOUNT_SECRET", "DT_SERVICE_ACCOUNT_EMAIL")


class MissingError(Exception):
    """Raised if a credential is missing; its text says what to do."""


def sign_in(environ: Mapping[str, str]) -> None:
    """Make DT's package use the service account, and the API and token endpoint that are named; nothing is sent yet.

    Args:
        environ: the process's environment.

    Raises:
        MissingError: a credential is missing.
    """
    if missing := [name for name in VARIABLES if not environ.get(name)]:
        raise MissingError(f"set {', '.join(missing)}: the key of a service account of DT Studio")
    account = ServiceAccountAuth(*(environ[name] for name in VARIABLES))
    account.token_endpoint = environ.get("DT_TOKEN_URL") or account.token_endpoint
    disruptive.default_auth = account
    disruptive.base_url = (environ.get("DT_API_URL") or disruptive.base_url).rstrip("/")

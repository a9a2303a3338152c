"""Signs in to DT's REST API with the service account named by the environment."""

from collections.abc import Mapping

import disruptive
from disruptive.authentication import ServiceAccountAuth

VARIABLES = ("DT_SERVICE_ACCOUNT_KEY_ID", "DT_SERVICE_ACCOUNT_SECRET", "DT_SERVICE_ACCOUNT_EMAIL")


class MissingCredentials(Exception):
    """Raised if a credential is missing; the text names the variables to set."""


def sign_in(environ: Mapping[str, str]) -> None:
    """Configure the `disruptive` package: the service account, and the APIs and the token endpoint if they are set.

    Sends nothing: the first request fetches the access token.

    Raises:
        MissingCredentials: a credential is missing.
    """
    if missing := [name for name in VARIABLES if not environ.get(name)]:
        raise MissingCredentials(
            f"set {', '.join(missing)} to the key of a service account (DT Studio, API Integrations)"
        )
    account = ServiceAccountAuth(*(environ[name] for name in VARIABLES))
    account.token_endpoint = environ.get("DT_TOKEN_URL") or account.token_endpoint
    disruptive.default_auth = account
    disruptive.base_url = (environ.get("DT_API_URL") or disruptive.base_url).rstrip("/")
    disruptive.emulator_base_url = (environ.get("DT_EMULATOR_URL") or disruptive.emulator_base_url).rstrip("/")

"""Reads the DT service account that the environment names, and signs in to DT's REST API with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import disruptive
from disruptive.authentication import ServiceAccountAuth

VARIABLES = ("DT_SERVICE_ACCOUNT_KEY_ID", "DT_SERVICE_ACCOUNT_SECRET", "DT_SERVICE_ACCOUNT_EMAIL")
REFUSED = f"DT refuses the service account: check {', '.join(VARIABLES)}"  # what a status of 401 means


class MissingCredentials(Exception):
    """Raised if a credential is missing; the text names the variables to set."""


@dataclass(frozen=True, slots=True)
class Account:
    """A DT service account, and where DT's REST API is.

    Attributes:
        key_id: id of the key.
        secret: the key's secret.
        email: of the service account.
        api_url: base URL of the API, without a slash at the end.
        token_url: where access tokens are issued.
    """

    key_id: str
    secret: str = field(repr=False)
    email: str
    api_url: str
    token_url: str


def read_account(environ: Mapping[str, str]) -> Account:
    """Return the service account; DT_API_URL and DT_TOKEN_URL replace DT's own API.

    In the scheduled job, DT_SERVICE_ACCOUNT_KEY holds key id, secret and e-mail address, one a line: a single secret.

    Raises:
        MissingCredentials: a credential is missing.
    """
    if key := environ.get("DT_SERVICE_ACCOUNT_KEY", "").split():
        environ = {**environ, **dict(zip(VARIABLES, key, strict=False))}
    if missing := [name for name in VARIABLES if not environ.get(name)]:
        raise MissingCredentials(
            f"set {', '.join(missing)} to the key of a service account (DT Studio, API Integrations)"
        )
    key_id, secret, email = (environ[name] for name in VARIABLES)
    return Account(
        key_id,
        secret,
        email,
        api_url=(environ.get("DT_API_URL") or disruptive.base_url).rstrip("/"),
        token_url=environ.get("DT_TOKEN_URL") or ServiceAccountAuth.token_endpoint,
    )


def sign_in(environ: Mapping[str, str]) -> None:
    """Configure the `disruptive` package: the service account, and the APIs and the token endpoint if they are set.

    Sends nothing: the first request fetches the access token.

    Raises:
        MissingCredentials: a credential is missing.
    """
    account = read_account(environ)
    disruptive.default_auth = ServiceAccountAuth(account.key_id, account.secret, account.email)
    disruptive.default_auth.token_endpoint = account.token_url
    disruptive.base_url = account.api_url
    disruptive.emulator_base_url = (environ.get("DT_EMULATOR_URL") or disruptive.emulator_base_url).rstrip("/")

"""What commands that use the function's Firestore read before they begin: its settings, and the user's credentials."""

import os
import re
from collections.abc import Mapping

import click
import google.auth
from google.auth.exceptions import GoogleAuthError

from receiver.settings import Settings, SettingsError, read_settings


def database_settings(chosen: Mapping[str, str], options: Mapping[str, str]) -> Settings:
    """Return the function's settings; no secret is needed, since nothing is verified.

    FIRESTORE_EMULATOR_HOST is read from the environment.

    Args:
        chosen: the values by the name of the setting; empty for one that is not set.
        options: the command's options by the name of the setting, for the text of an error.

    Raises:
        click.UsageError: a setting is wrong.
    """
    host = os.environ.get("FIRESTORE_EMULATOR_HOST", "")
    try:
        return read_settings({**chosen, "FIRESTORE_EMULATOR_HOST": host, "DT_SIGNATURE_SECRET": "not used"})
    except SettingsError as error:
        option = options.get(re.split(r"\W", str(error))[0])
        raise click.UsageError(f"{option} or {error}" if option else str(error)) from None


def project_of_credentials() -> str | None:
    """Return the project that the user's Google credentials name, if any.

    Raises:
        click.UsageError: the user has no credentials.
    """
    try:
        _, project = google.auth.default()
    except GoogleAuthError:
        raise click.UsageError("no Google Cloud credentials: run `gcloud auth application-default login`") from None
    return project

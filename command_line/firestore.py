"""What commands that use the function's Firestore read before they begin: its settings, and the user's credentials."""

import os
from collections.abc import Mapping

import click
import google.auth
from google.auth.exceptions import GoogleAuthError

import command_line
from receiver.settings import Settings


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
    environ = {**chosen, "FIRESTORE_EMULATOR_HOST": host, "DT_SIGNATURE_SECRET": "not used"}
    return command_line.function_settings(environ, options)


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

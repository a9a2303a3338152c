"""`python -m deploy.data_connector`: creates or updates the Data Connector of a DT project. deploy.sh runs it.

The signature secret is read from standard input, so that it is on no command line.
"""

import os
import sys
from typing import Any

import click

import command_line
from dtcloud.account import MissingCredentials, sign_in
from dtcloud.data_connectors import DataConnectorError, Wanted, ensure

_EXAMPLE = (
    "python -m deploy.data_connector --project bhmh0143iktucae701vg \\",
    "    --url https://x.run.app --labels name,room < secret.txt",
)


@click.command(epilog=command_line.examples(*_EXAMPLE))
@click.option("--project", metavar="ID", required=True, help="DT's project id.")
@click.option("--url", required=True, help="URL of the endpoint.")
@click.option("--name", default="dataconnector-endpoint", show_default=True, help="Display name of a new connector.")
@click.option("--labels", metavar="A,B", type=command_line.items, default="", help="Labels to send with each event.")
@click.option("--event-types", metavar="A,B", type=command_line.items, default="", help="Event types to send (all).")
def command(project: str, **settings: Any) -> None:
    """Create a Data Connector, or update the one with this endpoint or name.

    The signature secret is the first line of standard input. DT_SERVICE_ACCOUNT_KEY_ID, DT_SERVICE_ACCOUNT_SECRET and
    DT_SERVICE_ACCOUNT_EMAIL hold the key of a DT service account (DT Studio, API Integrations) with the role Project
    Developer or higher. DT_API_URL and DT_TOKEN_URL replace DT's own API, for example in a test.
    """
    try:
        sign_in(os.environ)
        secret = next((line.strip() for line in sys.stdin if line.strip()), "")
        if not secret:
            raise click.UsageError("standard input holds no signature secret")
        name, change = ensure(project, Wanted(secret=secret, **settings))
    except MissingCredentials as error:
        raise click.UsageError(str(error)) from None
    except DataConnectorError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"The Data Connector {name} is {change}.")


if __name__ == "__main__":
    sys.exit(command_line.run(command, name="python -m deploy.data_connector"))

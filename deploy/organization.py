"""`python -m deploy.organization`: prints the id of a DT project's organization, for `DT_ORGANIZATION_ID`."""

import os
import sys

import click

import command_line
from dtcloud.account import MissingCredentials, sign_in
from dtcloud.organizations import OrganizationError, organization_of


@click.command(epilog=command_line.examples("python -m deploy.organization --project bhmh0143iktucae701vg"))
@click.option("--project", metavar="ID", required=True, help="DT's project id.")
def command(project: str) -> None:
    """Print the id of the organization that a DT project belongs to.

    DT_SERVICE_ACCOUNT_KEY_ID, DT_SERVICE_ACCOUNT_SECRET and DT_SERVICE_ACCOUNT_EMAIL hold the key of a DT service
    account (DT Studio, API Integrations) with a role in the project. DT_API_URL and DT_TOKEN_URL replace DT's own API.
    """
    try:
        sign_in(os.environ)
        click.echo(organization_of(project))
    except MissingCredentials as error:
        raise click.UsageError(str(error)) from None
    except OrganizationError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    sys.exit(command_line.run(command, name="python -m deploy.organization"))

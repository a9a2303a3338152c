"""Creates or updates the Data Connector of a DT project, so that its events come to the endpoint.

Started by deploy.sh. The signature secret comes on standard input, never on a command line.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import disruptive
from disruptive.errors import DTApiError

from dtcloud.account import MissingError, sign_in

_DESCRIPTION = """\
Create a Data Connector, or update the one with this endpoint or name. The signature secret is the first line of
standard input. The credentials of a DT service account (DT Studio, API Integrations; its role must be Project
Developer or higher) are in DT_SERVICE_ACCOUNT_KEY_ID, DT_SERVICE_ACCOUNT_SECRET and DT_SERVICE_ACCOUNT_EMAIL.
DT_API_URL and DT_TOKEN_URL name another API than DT's own.
"""
_EXAMPLE = """\
example:
  python -m deploy.data_connector --project bhmh0143iktucae701vg --url https://x.run.app --labels name,room < secret.txt
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Connect, and say what was done.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit status: 0 connected, 1 refused by DT's API, 2 a wrong argument or setting.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        sign_in(os.environ)
    except MissingError as error:
        parser.error(str(error))
    secret = next((line.strip() for line in sys.stdin if line.strip()), "")
    if not secret:
        parser.error("standard input holds no signature secret")
    try:
        print(_connect(arguments, disruptive.DataConnector.HttpPushConfig(arguments.url, secret)))
    except DTApiError as error:
        print(f"DT's API refuses ({type(error).__name__}): {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.data_connector",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--project", required=True, help="DT's id of the project")
    parser.add_argument("--url", required=True, help="the endpoint")
    parser.add_argument("--name", default="dataconnector-endpoint", help="the connector's display name")
    parser.add_argument("--labels", type=_list, default=[], metavar="A,B", help="labels to send with each event")
    parser.add_argument("--event-types", type=_list, default=[], metavar="A,B", help="event types to send (all)")
    return parser


def _list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _connect(wanted: argparse.Namespace, config: disruptive.DataConnector.HttpPushConfig) -> str:
    settings = {"event_types": wanted.event_types, "labels": wanted.labels}
    present = _find(wanted)
    if present is None:
        disruptive.DataConnector.create_data_connector(wanted.project, config, display_name=wanted.name, **settings)
        return f"The Data Connector {wanted.name} is created."
    if _is_so(present, wanted, config):
        return f"The Data Connector {present.display_name} is as it should be."
    # One that DT switched off after days of failures starts again; one that a person switched off stays so.
    config.headers = present.config.headers if present.config else None
    revived = "ACTIVE" if present.status == "SYSTEM_DISABLED" else None
    disruptive.DataConnector.update_data_connector(
        present.data_connector_id, wanted.project, config=config, status=revived, **settings
    )
    return f"The Data Connector {present.display_name} is updated."


def _find(wanted: argparse.Namespace) -> disruptive.DataConnector | None:
    connectors = disruptive.DataConnector.list_data_connectors(wanted.project)
    pushing = [each for each in connectors if each.data_connector_type == "HTTP_PUSH"]
    by_url = [each for each in pushing if each.config is not None and each.config.url == wanted.url]
    return next(iter(by_url + [each for each in pushing if each.display_name == wanted.name]), None)


def _is_so(
    present: disruptive.DataConnector, wanted: argparse.Namespace, config: disruptive.DataConnector.HttpPushConfig
) -> bool:
    return (
        present.status != "SYSTEM_DISABLED"
        and present.config is not None
        and present.config.url == config.url
        and present.config.signature_secret == config.signature_secret
        and set(present.event_types) == set(wanted.event_types)
        and set(present.labels) == set(wanted.labels)
    )


if __name__ == "__main__":
    sys.exit(main())

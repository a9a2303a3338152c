"""The command line of the backfill."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import click
from click.core import ParameterSource

import command_line
from backfill import options
from backfill.check import check
from backfill.forget import forget
from backfill.quarantine import quarantine
from backfill.rate_limit import RateLimit
from backfill.repair import repair
from backfill.results import Results
from backfill.run import transfer
from backfill.writers import STAMP, DocumentWriter, DryRunWriter, Writer
from receiver.store import Store

_EXAMPLES = (
    "python -m backfill --dt-project c0md3pm0p7bet3vico8g --since 12h --dry-run",
    "python -m backfill --dt-project c0md3pm0p7bet3vico8g \\",
    "    --since 2026-05-16 --until 2026-05-18T06:00:00Z",
    "python -m backfill --dt-project c0md3pm0p7bet3vico8g --since 31d \\",
    "    --event-type temperature --labels name,room",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; `argv` defaults to the arguments of the process."""
    return command_line.run(command, argv, name="python -m backfill")


@click.group(invoke_without_command=True, subcommand_metavar="[COMMAND …]", epilog=command_line.examples(*_EXAMPLES))
@options.options(
    click.option("--dt-project", metavar="ID", type=options.dt_id, help="DT's project id.  [required]"),
    click.option("--since", metavar="TIME", help="3d, 12h, a date (midnight UTC), or an RFC 3339 time.  [required]"),
    options.selection,
    options.labels,
    options.database,
    options.devices_collection,
    options.retention,
)
@click.option(
    "--rate",
    metavar="N",
    type=command_line.COUNT,
    help="Maximum of writes a second. The rate starts at 500 and grows by half every 5 minutes in any case.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing; show which devices and days lack documents.")
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Fetch history from DT's REST API and create the documents that the function would have created.

    An existing document is left unchanged, so the command can run again at any time, also while the function runs.
    DT is asked for the whole time, also beyond the 31 days that it documents; the report names the oldest event that
    came. Without a command, this is what `python -m backfill` does.

    With RETENTION_DAYS, each event is kept for that many days from now on, however old it is.

    DT: DT_SERVICE_ACCOUNT_KEY_ID, DT_SERVICE_ACCOUNT_SECRET and DT_SERVICE_ACCOUNT_EMAIL hold the key of a service
    account with a role in the project (DT Studio, API Integrations). DT_API_URL and DT_TOKEN_URL replace DT's own API.

    Google: application default credentials, or FIRESTORE_EMULATOR_HOST.

    Exit status: 0 every event is in Firestore; 1 an event failed or, in a dry run, is missing; 2 an argument, setting
    or credential is wrong or missing; 130 interrupted.
    """
    if context.invoked_subcommand is None:
        return _run(SimpleNamespace(**given), given)
    if any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in given):
        raise click.UsageError(f"options of {context.invoked_subcommand} must follow its name")
    return 0


command.add_command(check)
command.add_command(forget)
command.add_command(quarantine)
command.add_command(repair)


def _run(given: SimpleNamespace, values: Mapping[str, Any]) -> int:
    for name in ("dt_project", "since"):
        if not values[name]:
            raise click.UsageError(f"Missing option '--{name.replace('_', '-')}'.")
    window = options.read_window(given.since, given.until)
    settings = options.read_database_settings(values)
    results = Results(dry_run=given.dry_run)

    def open_writer() -> Writer:
        if given.dry_run:
            return DryRunWriter(settings, results)
        return DocumentWriter(Store(settings, stamp=STAMP), settings, RateLimit(given.rate), results)

    return transfer(given, window, open_writer, results)

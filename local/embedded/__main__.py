"""`python -m local.embedded`: serves the embedded store."""

import sqlite3
import sys
from pathlib import Path

import click

from command_line import examples, run
from local.embedded.server import serve


@click.command(
    epilog=examples(
        "python -m local.embedded --port 8686 --file events.sqlite3",
        "export FIRESTORE_EMULATOR_HOST=127.0.0.1:8686",
        "sqlite3 events.sqlite3 'SELECT path, fields FROM documents LIMIT 5'",
    )
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="TCP port on 127.0.0.1; by default 0, a free one."
)
@click.option("--file", type=click.Path(path_type=Path), required=True, help="SQLite file; created if missing.")
def main(port: int, file: Path) -> None:
    """Serve the embedded store, a Firestore on one SQLite file, on this machine."""
    try:
        serve(port, file)
    except OSError as error:
        raise click.UsageError(f"Port {port} is not available ({error}): choose another one with --port.") from error
    except sqlite3.Error as error:
        raise click.UsageError(
            f"{file} cannot be used ({error}): name an SQLite file in a folder that exists."
        ) from error


if __name__ == "__main__":
    sys.exit(run(main, name="python -m local.embedded"))

"""`python -m backfill`."""

import os
import sys

# DT's package reads this one when it is imported, and fails where the file is missing; the credentials that count here
# are the three variables that --help names.
os.environ.pop("DT_CREDENTIALS_FILE", None)

from backfill.cli import main

status = main()
sys.stdout.flush()
sys.stderr.flush()
# Not sys.exit: it would wait for threads that may be asleep for as long as DT's Retry-After said.
os._exit(status)

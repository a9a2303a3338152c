"""`python -m backfill`."""

import os
import sys

from backfill.cli import main

status = main()
sys.stdout.flush()
sys.stderr.flush()
# sys.exit would wait for threads, which may sleep for as long as DT's Retry-After demands.
os._exit(status)

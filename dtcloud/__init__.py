"""DT's REST API (sign-in, history, Data Connectors, emulated sensors, organizations), its signature and its ids."""

import os

# The `disruptive` package reads this variable when it is imported, and fails if the file that it names does not exist.
# `account.VARIABLES` are the only credentials that are used here.
os.environ.pop("DT_CREDENTIALS_FILE", None)

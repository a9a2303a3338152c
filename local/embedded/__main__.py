"""`python -m local.embedded`: serves the embedded Firestore."""

import sys

from local.embedded.server import main

sys.exit(main())

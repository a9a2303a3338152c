"""`python -m tests.fuzz`: sends hostile requests and checks that they do no damage."""

import sys

from tests.fuzz.runner import main

sys.exit(main())

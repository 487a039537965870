"""`python -m throughplane` is the same as `throughplane`."""

import sys

from throughplane.cli import main

sys.exit(main())

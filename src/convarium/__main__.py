"""``python -m convarium``."""

import sys

from convarium.cli import main

sys.exit(main())

"""`python -m tests.planted [NAME…]`: prove that the tests bite."""

import sys

from tests.planted.runner import main

sys.exit(main(sys.argv[1:]))

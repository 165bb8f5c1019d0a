"""`python -m tickless.runner.fresh LAUNCHER_DIR WORKSPACE`: a new interpreter that runs one order.

For DAG files whose import leaves something behind that a fork would break. Descriptors: 3 the gate, 4 the order as
JSON. The import is part of the attempt here, so it happens after the gate.
"""

from __future__ import annotations

import os
import sys

from tickless.runner.attempt import OUTCOME, decode_order, enter, import_problem, run_and_exit, wait_at_gate
from tickless.runner.execute import configure_logging
from tickless.wire.mark import set_mark


def main() -> None:
    """Run the order and exit."""
    folder, workspace = sys.argv[1:3]
    size = os.fstat(OUTCOME).st_size
    order = decode_order(os.pread(OUTCOME, size, 0))
    os.set_inheritable(3, False)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a real stream here
    set_mark(0, order.attempt_id)
    configure_logging()
    enter(order, folder, workspace)  # its outcome takes the place of the order as descriptor 4
    wait_at_gate()
    run_and_exit(order, folder, workspace, import_problem(order))


if __name__ == "__main__":
    main()

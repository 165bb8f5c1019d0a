"""`python -m tickless.launcher`."""

from __future__ import annotations

from tickless.launcher.main import main

if __name__ == "__main__":
    main()

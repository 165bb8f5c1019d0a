"""The page of the command line says what the commands say."""

from __future__ import annotations

from tickless.cli import problem
from tickless.cli.reference import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tickless.cli.reference"


def test_every_exit_code_is_explained() -> None:
    codes = {value for name, value in vars(problem).items() if name.isupper() and isinstance(value, int)}
    assert codes == {0, 1, 2, 3, 4, 5, 6, 78, 124, 130}
    assert all(f"| {code} | " in page() for code in codes)

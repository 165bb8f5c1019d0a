"""The reference configuration and the page say what the schema says."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tickless.config.load import load
from tickless.config.reference import MARKDOWN_PAGE, TOML_PAGE, markdown_page, toml_page
from tickless.config.schema import Reload, keys
from tickless.model.limit import Limits


def test_the_pages_are_current() -> None:
    for path, text in ((TOML_PAGE, toml_page()), (MARKDOWN_PAGE, markdown_page())):
        assert path.read_text(encoding="utf-8") == text, "run: python -m tickless.config.reference"


def test_the_reference_configuration_changes_nothing() -> None:
    home = Path("/home-that-is-not-there")
    assert load(home, option=str(TOML_PAGE), environ={}) == load(home, environ={})


def test_the_reference_configuration_has_every_key() -> None:
    data = tomllib.loads(TOML_PAGE.read_text(encoding="utf-8"))
    for info in keys():
        table = data["executors"]["local"] if info.section.startswith("executors") else data[info.section]
        assert info.name in table


def test_every_key_says_what_it_is() -> None:
    for info in keys():
        assert info.doc.endswith("."), info.name
        assert info.reload in Reload
        if info.name.endswith("_seconds"):
            assert info.unit == "seconds"


def test_the_limits_have_one_set_of_defaults() -> None:
    assert load(Path("/nowhere"), environ={}).limits() == Limits()

"""Writes the two pages that show every key: config/tickless.toml and docs/config.md. Run as a module after a change:

python -m tickless.config.reference
"""

from __future__ import annotations

import json
import textwrap
from itertools import groupby
from pathlib import Path

from tickless.config.schema import KeyInfo, Reload, Settings, keys, sections

ROOT = Path(__file__).resolve().parents[2]
TOML_PAGE = ROOT / "config" / "tickless.toml"
MARKDOWN_PAGE = ROOT / "docs" / "config.md"

_RELOAD_WORDS = {Reload.LIVE: "live", Reload.RESTART: "needs a restart"}
_EXAMPLE_EXECUTOR = "local"


def toml_page() -> str:
    """config/tickless.toml: every key with its default, so loading the page changes nothing."""
    out = [
        "# The reference configuration of tickless: every key with its default. Made from the schema",
        "# (python -m tickless.config.reference). Copy what you change to HOME/tickless.toml or name a file with",
        "# --config. An environment variable TICKLESS_SECTION__KEY comes before the file. live = a reload is enough.",
    ]
    for section, infos in groupby(keys(), key=lambda info: info.section):
        model = sections()["executors" if section.startswith("executors") else section]
        out += ["", *_comment(model.__doc__ or ""), f"[{section.replace('NAME', _EXAMPLE_EXECUTOR)}]"]
        for info in infos:
            out += ["", *_comment(f"{info.doc} ({_facts(info)})"), f"{info.name} = {_toml(info.default)}"]
    out += ["", *_comment(_queues_doc() + " (live)"), "[queues]", 'default = "local"']
    return "\n".join(out) + "\n"


def markdown_page() -> str:
    """docs/config.md."""
    out = [
        "# Configuration",
        "",
        "Made from the schema by `python -m tickless.config.reference`; a test keeps it current.",
        "",
        "One TOML file, optional: `--config FILE`, else `$TICKLESS_CONFIG`, else `HOME/tickless.toml`. HOME is",
        "`--home`, else `$TICKLESS_HOME`, else `~/.tickless`. A variable `TICKLESS_SECTION__KEY` (for example",
        "`TICKLESS_LIMITS__PARALLELISM=8`) comes before the file, a command-line flag before both. An unknown key, a",
        "wrong type or a value out of range stops the start with exit code 78; every mistake is named with file and",
        'line, all at once. Where a key may be none, write `"none"`.',
        "",
        "*live*: a reload is enough. *restart*: takes effect at the next start.",
    ]
    for section, infos in groupby(keys(), key=lambda info: info.section):
        model = sections()["executors" if section.startswith("executors") else section]
        out += ["", f"## [{section}]", "", " ".join((model.__doc__ or "").split()), ""]
        out += ["| key | type | default | effect | what it is |", "|---|---|---|---|---|"]
        for info in infos:
            kind = info.type + (f", {info.unit}" if info.unit else "")
            names = f" Also understood as {', '.join(f'`{alias}`' for alias in info.aliases)}." if info.aliases else ""
            default = _toml(info.default).strip('"') if info.default is None else _toml(info.default)
            out.append(f"| `{info.name}` | {kind} | `{default}` | {info.reload} | {info.doc}{names} |")
    out += ["", "## [queues]", "", _queues_doc(), ""]
    return "\n".join(out)


def _queues_doc() -> str:
    return Settings.model_fields["queues"].description or ""


def _facts(info: KeyInfo) -> str:
    parts = [info.type, *([info.unit] if info.unit else []), _RELOAD_WORDS[info.reload]]
    if info.aliases:
        parts.append("also " + ", ".join(info.aliases))
    return "; ".join(parts)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), 110)]


def _toml(value: object) -> str:
    """JSON of text, numbers and flat lists is TOML too."""
    return '"none"' if value is None else json.dumps(value)


if __name__ == "__main__":
    TOML_PAGE.parent.mkdir(exist_ok=True)
    TOML_PAGE.write_text(toml_page(), encoding="utf-8")
    MARKDOWN_PAGE.parent.mkdir(exist_ok=True)
    MARKDOWN_PAGE.write_text(markdown_page(), encoding="utf-8")

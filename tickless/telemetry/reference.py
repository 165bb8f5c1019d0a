"""Writes docs/log-events.md from the registry. After a change: python -m tickless.telemetry.reference"""

from __future__ import annotations

from pathlib import Path

from tickless.telemetry.events import EVENTS
from tickless.telemetry.launcher_events import LAUNCHER_EVENTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "log-events.md"


def page() -> str:
    """docs/log-events.md."""
    out = [
        "# Log events",
        "",
        "Made from tickless/telemetry/ by `python -m tickless.telemetry.reference`; a test keeps it current.",
        "",
        "The daemon logs on stderr: sentences on a terminal and in `tickless dev`, one JSON object per line elsewhere",
        "(`[log] format`). Each object has `at` (UTC), `level` and `event`; keys without a value are left out.",
        "",
        "| event | level | keys | when |",
        "|---|---|---|---|",
    ]
    for spec in sorted(EVENTS.values(), key=lambda spec: spec.name):
        out.append(f"| `{spec.name}` | {spec.level} | {' '.join(spec.keys)} | {spec.doc} |")
    out += [
        "",
        "## The launcher's",
        "",
        "The launcher logs by itself, one JSON object per line with `at` and `event`: in `launcher/launcher.log` of",
        "the home, or in the journal where systemd runs it.",
        "",
        "| event | keys | when |",
        "|---|---|---|",
    ]
    for event in sorted(LAUNCHER_EVENTS.values(), key=lambda event: event.name):
        out.append(f"| `{event.name}` | {' '.join(event.keys)} | {event.doc} |")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")

"""A DAG as a picture: lines of text for a terminal, or SVG. Made of what the API answers; nothing is laid out here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from tickless.cli.output import safe

# Which of up, down, left and right a sign joins.
_SIGNS = {
    "UDR": "├",
    "UDL": "┤",
    "DR": "┌",
    "DL": "┐",
    "UR": "└",
    "UL": "┘",
    "DLR": "┬",
    "ULR": "┴",
    "UDLR": "┼",
    "LR": "─",
    "UD": "│",
    "": " ",
}


def text_graph(graph: Mapping[str, Any]) -> list[str]:
    """A line per task, in an order in which they may run, with rails to the tasks below that wait for it."""
    below: dict[str, list[str]] = {node["task_id"]: [] for node in graph["nodes"]}
    for edge in graph["edges"]:
        below[edge["upstream"]].append(edge["downstream"])
    lines: list[tuple[str, str]] = []
    rails: dict[int, str] = {}  # lane -> the task that it leads to
    for task_id, downstream in below.items():
        here = sorted(lane for lane, to in rails.items() if to == task_id)
        at = here[0] if here else _free(rails)
        if len(here) > 1:
            before = set(rails)
            for lane in here[1:]:
                del rails[lane]
            lines.append((_row(before, set(rails), set(here)), ""))
        rails.pop(at, None)
        lines.append((_node(at, rails), safe(task_id)))
        before = {*rails, at}
        targets = {lane for lane, to in rails.items() if to in downstream}
        for down in downstream:
            if down not in rails.values():
                lane = at if at not in rails else _free(rails)
                rails[lane] = down
                targets.add(lane)
        if targets - {at}:
            lines.append((_row(before, set(rails), targets | {at}), ""))
    return [f"{rail}  {name}".rstrip() if name else rail.rstrip() for rail, name in lines]


def svg_graph(graph: Mapping[str, Any]) -> str:
    """A standalone SVG document."""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {graph["width"]} {graph["height"]}" '
        f'width="{graph["width"]}" height="{graph["height"]}" font-family="sans-serif" font-size="13">',
        f"<title>{_text(graph['dag_id'])}, version {graph['version']}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#667"/></marker></defs>',
        f'<rect width="{graph["width"]}" height="{graph["height"]}" fill="#fff"/>',
    ]
    for edge in graph["edges"]:
        out.append(f'<path d="{_curve(edge["points"])}" fill="none" stroke="#667" marker-end="url(#arrow)"/>')
        if edge["label"]:
            (x1, y1), (x2, y2) = edge["points"][:2]
            middle = f'x="{(x1 + x2) // 2}" y="{(y1 + y2) // 2 - 4}"'
            out.append(f'<text {middle} text-anchor="middle" fill="#445">{_text(edge["label"])}</text>')
    for node in graph["nodes"]:
        x, y, width, height = (node[key] for key in ("x", "y", "width", "height"))
        out.append(
            f'<g><rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="#eef3fb" stroke="#456"/>'
            f'<text x="{x + width // 2}" y="{y + height // 2 + 4}" text-anchor="middle">{_text(node["task_id"])}</text>'
            f"<title>{_text(node['task_id'])}: {_text(node['operator'])}, {_text(node['trigger_rule'])}</title></g>"
        )
    return "\n".join([*out, "</svg>"]) + "\n"


def _free(rails: Mapping[int, str]) -> int:
    return next(lane for lane in range(len(rails) + 1) if lane not in rails)


def _node(at: int, rails: Collection[int]) -> str:
    last = max([at, *rails])
    return " ".join("●" if lane == at else "│" if lane in rails else " " for lane in range(last + 1))


def _row(before: Collection[int], after: Collection[int], joined: Collection[int]) -> str:
    """Signs between two rows of tasks: the joined lanes are tied together, the others pass behind."""
    first, last = min(joined), max(joined)
    row = ""
    for lane in range(max([*before, *after, last]) + 1):
        if lane in joined:
            sides = ("U" if lane in before else "") + ("D" if lane in after else "")
            sides += ("L" if lane > first else "") + ("R" if lane < last else "")
            row += _SIGNS[sides]
        elif lane in before:
            row += "│"
        else:
            row += "─" if first < lane < last else " "
        row += "─" if first <= lane < last else " "
    return row


def _curve(points: Sequence[Sequence[int]]) -> str:
    """A smooth line through the points that leaves and arrives horizontally."""
    (x, y), *rest = points
    path = f"M{x} {y}"
    for to_x, to_y in rest:
        middle = (x + to_x) // 2
        path += f"L{to_x} {to_y}" if to_y == y else f"C{middle} {y} {middle} {to_y} {to_x} {to_y}"
        x, y = to_x, to_y
    return path


def _text(text: str) -> str:
    return escape(safe(text))

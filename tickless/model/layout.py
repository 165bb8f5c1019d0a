"""Where the tasks of a DAG lie when it is drawn: a pure function of its spec, so it is computed once per version.

Layered, from left to right. A task's layer is the longest way to it. An edge over several layers gets a waypoint in
each one that it crosses; within a layer tasks and waypoints are ordered by the middle of their neighbours, swept to
and fro (Sugiyama), which leaves few crossings. Ties keep the order of the file, so the same DAG looks the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tickless.model.dag import DagSpec

LAYOUT_VERSION = 1
"""Raised when the same spec is laid out differently from then on: what is stored under another number is worthless."""

NODE_HEIGHT = 36
GAP_X = 60
GAP_Y = 18
MARGIN = 20
_CHARACTER_WIDTH = 8
_LEAST_WIDTH = 80
_SWEEPS = 4
_MOST_WAYPOINTS = 20_000

Point = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBox:
    """A task; x and y are those of its upper left corner."""

    task_id: str
    layer: int
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLine:
    """A dependency, from the right side of one box to the left side of the other."""

    upstream: str
    downstream: str
    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A drawn DAG; nodes are in the spec's order."""

    width: int
    height: int
    nodes: tuple[NodeBox, ...]
    edges: tuple[EdgeLine, ...]


@dataclass(frozen=True, slots=True)
class _Waypoint:
    """Where an edge crosses a layer."""

    upstream: str
    downstream: str
    layer: int


_Cell = str | _Waypoint


def lay_out(spec: DagSpec) -> Layout:
    """The layout."""
    layer_of = _layers(spec)
    edges = [(up, task.task_id) for task in spec.tasks for up in task.upstream]
    has_waypoints = sum(layer_of[down] - layer_of[up] - 1 for up, down in edges) <= _MOST_WAYPOINTS
    layers: list[list[_Cell]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for task_id, layer in layer_of.items():
        layers[layer].append(task_id)
    chains: dict[tuple[str, str], list[_Cell]] = {}
    for up, down in edges:
        crossed = range(layer_of[up] + 1, layer_of[down]) if has_waypoints else ()
        waypoints = [_Waypoint(up, down, layer) for layer in crossed]
        for waypoint in waypoints:
            layers[waypoint.layer].append(waypoint)
        chains[up, down] = [up, *waypoints, down]
    _order(layers, chains)
    return _place(spec, layers, chains, layer_of)


def _layers(spec: DagSpec) -> dict[str, int]:
    layer_of: dict[str, int] = {}
    for task in spec.tasks:  # in topological order
        layer_of[task.task_id] = max((layer_of[up] + 1 for up in task.upstream), default=0)
    return layer_of


def _order(layers: list[list[_Cell]], chains: Mapping[tuple[str, str], Sequence[_Cell]]) -> None:
    before: dict[_Cell, list[_Cell]] = {}
    after: dict[_Cell, list[_Cell]] = {}
    for chain in chains.values():
        for left, right in pairwise(chain):
            after.setdefault(left, []).append(right)
            before.setdefault(right, []).append(left)
    for sweep in range(_SWEEPS):
        is_forward = sweep % 2 == 0
        neighbours = before if is_forward else after
        at = {cell: float(index) for layer in layers for index, cell in enumerate(layer)}
        for layer in layers if is_forward else reversed(layers):
            middle = {
                cell: sum(at[other] for other in near) / len(near) if (near := neighbours.get(cell)) else at[cell]
                for cell in layer
            }
            layer.sort(key=middle.__getitem__)  # stable
            at.update((cell, float(index)) for index, cell in enumerate(layer))


def _place(
    spec: DagSpec,
    layers: list[list[_Cell]],
    chains: Mapping[tuple[str, str], Sequence[_Cell]],
    layer_of: Mapping[str, int],
) -> Layout:
    step = NODE_HEIGHT + GAP_Y
    tallest = max((len(layer) for layer in layers), default=0)
    corner: dict[_Cell, Point] = {}
    widths = []
    x = MARGIN
    for layer in layers:
        ids = [cell for cell in layer if isinstance(cell, str)]
        width = max(_LEAST_WIDTH, *(_CHARACTER_WIDTH * len(task_id) + 20 for task_id in ids), 0)
        top = MARGIN + (tallest - len(layer)) * step // 2
        for index, cell in enumerate(layer):
            corner[cell] = (x, top + index * step)
        widths.append(width)
        x += width + GAP_X
    nodes = tuple(
        NodeBox(
            task_id=task.task_id,
            layer=layer_of[task.task_id],
            x=corner[task.task_id][0],
            y=corner[task.task_id][1],
            width=widths[layer_of[task.task_id]],
            height=NODE_HEIGHT,
        )
        for task in spec.tasks
    )
    labels = {(label.upstream, label.downstream): label.label for label in spec.edge_labels}
    lines = []
    for (up, down), chain in chains.items():
        points: list[Point] = [(corner[up][0] + widths[layer_of[up]], corner[up][1] + NODE_HEIGHT // 2)]
        for cell in chain[1:-1]:
            assert isinstance(cell, _Waypoint)
            left, top = corner[cell]
            middle = top + NODE_HEIGHT // 2
            points += [(left, middle), (left + widths[cell.layer], middle)]
        points.append((corner[down][0], corner[down][1] + NODE_HEIGHT // 2))
        label = labels.get((up, down), "")
        lines.append(EdgeLine(upstream=up, downstream=down, label=label, points=tuple(points)))
    height = 2 * MARGIN + max(0, tallest * step - GAP_Y)
    return Layout(width=max(x - GAP_X, MARGIN) + MARGIN, height=height, nodes=nodes, edges=tuple(lines))

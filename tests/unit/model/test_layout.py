"""Where tasks lie: each shape is a row."""

from __future__ import annotations

import pytest

from tests.support.builders import make_dag
from tickless.model.layout import GAP_Y, NODE_HEIGHT, Layout, lay_out

STEP = NODE_HEIGHT + GAP_Y


def columns(layout: Layout) -> list[list[str]]:
    """Task ids by layer, from top to bottom."""
    found: list[list[str]] = [[] for _ in range(max((node.layer for node in layout.nodes), default=-1) + 1)]
    for node in sorted(layout.nodes, key=lambda node: node.y):
        found[node.layer].append(node.task_id)
    return found


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("a", [["a"]]),
        ("a >> b >> c", [["a"], ["b"], ["c"]]),
        ("a >> [b, c] >> d", [["a"], ["b", "c"], ["d"]]),
        ("a; b; c", [["a", "b", "c"]]),
        # as late as the longest way to it
        ("a >> b >> c; a >> c", [["a"], ["b"], ["c"]]),
        # straightened: in the order of the file the two edges would cross
        ("a; b; a >> y; b >> x; y >> [q]", [["a", "b"], ["y", "x"], ["q"]]),
        ("[a, b] >> z; a >> p; b >> o", [["a", "b"], ["p", "z", "o"]]),
    ],
)
def test_layers_and_their_order(shape: str, expected: list[list[str]]) -> None:
    assert columns(lay_out(make_dag(shape))) == expected


@pytest.mark.parametrize("shape", ["a", "a >> [b, c] >> d", "a >> b >> c >> d; a >> d; b >> d; x >> d"])
def test_boxes_keep_apart_and_inside(shape: str) -> None:
    layout = lay_out(make_dag(shape))
    for node in layout.nodes:
        assert 0 <= node.x <= node.x + node.width <= layout.width
        assert 0 <= node.y <= node.y + node.height <= layout.height
        for other in layout.nodes:
            assert node is other or node.layer != other.layer or abs(node.y - other.y) >= STEP


def test_edges_go_from_box_to_box_and_around_those_between() -> None:
    layout = lay_out(make_dag("a >> b >> c; a >> c"))
    box = {node.task_id: node for node in layout.nodes}
    for edge in layout.edges:
        start, end = box[edge.upstream], box[edge.downstream]
        assert edge.points[0] == (start.x + start.width, start.y + NODE_HEIGHT // 2)
        assert edge.points[-1] == (end.x, end.y + NODE_HEIGHT // 2)
    [long] = [edge for edge in layout.edges if (edge.upstream, edge.downstream) == ("a", "c")]
    crossing = [y for x, y in long.points if box["b"].x <= x <= box["b"].x + box["b"].width]
    assert crossing
    assert all(not box["b"].y <= y <= box["b"].y + NODE_HEIGHT for y in crossing)


def test_the_same_dag_looks_the_same() -> None:
    shape = "a >> [b, c, d] >> e; c >> f; [e, f] >> g; a >> g"
    assert lay_out(make_dag(shape)) == lay_out(make_dag(shape))


def test_no_tasks_is_a_picture_too() -> None:
    layout = lay_out(make_dag(""))
    assert (layout.nodes, layout.edges) == ((), ())
    assert layout.width > 0
    assert layout.height > 0

"""Pictures of DAGs: rails on a terminal, row by row; SVG that can be read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.builders import make_dag
from tickless.cli.graph import svg_graph, text_graph
from tickless.model.layout import lay_out


def graph(shape: str) -> dict[str, Any]:
    """As the API answers it."""
    found = asdict(lay_out(make_dag(shape)))
    nodes = [{**node, "operator": "@task", "trigger_rule": "all_success"} for node in found["nodes"]]
    return {**found, "dag_id": "dag", "version": 1, "nodes": nodes}


@pytest.mark.parametrize(
    ("shape", "picture"),
    [
        ("a", "●  a"),
        ("a; b", "●  a\n●  b"),
        ("a >> b >> c", "●  a\n●  b\n●  c"),
        ("a >> [b, c] >> d", "●  a\n├─┐\n● │  b\n│ ●  c\n├─┘\n●  d"),
        ("a >> [b, c, d]", "●  a\n├─┬─┐\n● │ │  b\n  ● │  c\n    ●  d"),
        ("[a, b] >> c", "●  a\n│ ●  b\n├─┘\n●  c"),
        ("a >> b >> c; a >> c", "●  a\n├─┐\n● │  b\n└─┤\n  ●  c"),
    ],
)
def test_rails(shape: str, picture: str) -> None:
    assert "\n".join(text_graph(graph(shape))) == picture


def test_svg_has_every_task_and_edge() -> None:
    root = ElementTree.fromstring(svg_graph(graph("a >> [b, c] >> d; a >> d")))
    name = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{name}text")]
    assert texts == ["a", "b", "c", "d"]
    assert len(root.findall(f"{name}path")) == 5


def test_svg_escapes_what_users_wrote() -> None:
    it = graph("a >> b")
    it["edges"][0]["label"] = '<script> & "\x1b'
    assert "&lt;script&gt; &amp;" in svg_graph(it)
    ElementTree.fromstring(svg_graph(it))

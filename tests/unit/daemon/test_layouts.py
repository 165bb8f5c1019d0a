"""Layouts are computed once per version, and a file that is no layout does no harm."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.builders import encode_spec, make_dag
from tickless.daemon import layouts
from tickless.daemon.layouts import Layouts
from tickless.model.dag import DagSpec
from tickless.model.id import VersionKey
from tickless.model.layout import Layout, lay_out
from tickless.model.row import VersionRow


def version(shape: str, digest: str) -> VersionRow:
    return VersionRow(
        key=VersionKey(1),
        dag_id="dag",
        number=1,
        spec=encode_spec(make_dag(shape)),
        hash=digest,
        bundle="/b",
        file="f.py",
        created_at=datetime(2026, 11, 23, tzinfo=UTC),
    )


def test_a_layout_is_computed_once_per_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []

    def counted(spec: DagSpec) -> Layout:
        computed.append(spec.dag_id)
        return lay_out(spec)

    monkeypatch.setattr(layouts, "lay_out", counted)
    one, two = version("a >> b", "1" * 64), version("a >> [b, c]", "2" * 64)
    first = Layouts(tmp_path / "layouts").find(one)
    assert Layouts(tmp_path / "layouts").find(one) == first == lay_out(make_dag("a >> b"))
    assert len(computed) == 1
    assert Layouts(tmp_path / "layouts").find(two) != first
    assert len(computed) == 2


def test_what_is_no_layout_is_replaced(tmp_path: Path) -> None:
    store = Layouts(tmp_path)
    expected = store.find(version("a", "1" * 64))
    [file] = tmp_path.iterdir()
    file.write_text("{}")
    assert store.find(version("a", "1" * 64)) == expected
    assert file.read_text() != "{}"


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Layouts(tmp_path / "file").find(version("a", "1" * 64)).nodes


def test_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "MOST_FILES", 3)
    for number in range(6):
        Layouts(tmp_path).find(version("a", str(number) * 64))
    assert len(list(tmp_path.iterdir())) == 3

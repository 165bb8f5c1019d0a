"""The API's document is complete, and the page made of it is current."""

from __future__ import annotations

from typing import Any

import pytest

from tickless.api.access import Access
from tickless.api.app import make_app
from tickless.api.document import PARAMETERS, document, operations
from tickless.api.reference import PAGE, page

DOCUMENT = document(make_app(None))
OPERATIONS = [(f"{method} {path}", operation) for path, method, operation in operations(DOCUMENT)]
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
each_operation = pytest.mark.parametrize(
    "operation", [each for _, each in OPERATIONS], ids=[name for name, _ in OPERATIONS]
)


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tickless.api.reference"


def test_operation_ids_are_unique_and_do_not_hang_on_paths() -> None:
    ids = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert all(each.isidentifier() and "api_v1" not in each for each in ids)


@each_operation
def test_an_operation_says_what_it_does_to_whom_and_what_its_parameters_mean(operation: dict[str, Any]) -> None:
    assert operation["description"]
    assert operation["tags"]
    Access(operation["x-tickless-access"])
    for parameter in operation.get("parameters", ()):
        assert parameter["description"], f"document.PARAMETERS does not tell what {parameter['name']} is"


@each_operation
def test_an_operation_declares_a_typed_answer_and_its_errors(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    good = [response for status, response in responses.items() if status < "300" and status != "204"]
    for response in good:
        for content in response["content"].values():
            assert content["schema"].keys() & {"$ref", "type"}
    assert good or "204" in responses
    for status, response in responses.items():
        if status >= "400" and "health" not in operation["tags"]:
            assert response["content"] == PROBLEM


def test_no_parameter_is_explained_that_no_route_has() -> None:
    used = {parameter["name"] for _, operation in OPERATIONS for parameter in operation.get("parameters", ())}
    assert set(PARAMETERS) == used


def test_every_answer_is_of_a_named_and_described_kind() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema.get("description") or name.startswith("Page_"), name

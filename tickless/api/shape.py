"""The two kinds of models of the API. The text below a field is its description in the OpenAPI document."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """What the API answers with."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Body(BaseModel):
    """What the API is sent. A field that it does not know is an error, not a wish that nobody hears."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

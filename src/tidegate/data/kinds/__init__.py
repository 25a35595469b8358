"""Kinds of column: each learns from the training part, then turns values into what a network reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tidegate.data.kinds.boolean import Boolean
from tidegate.data.kinds.category import Category
from tidegate.data.kinds.number import Number
from tidegate.data.kinds.timestamp import Timestamp

DenseKind = Annotated[Number | Boolean | Timestamp, Field(discriminator="kind")]

__all__ = ["Boolean", "Category", "DenseKind", "Number", "Timestamp"]

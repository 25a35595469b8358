"""Every task as one type, so that a saved model's JSON finds its class."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tidegate.tasks.classification import Classification, MultiLabel, Tagging
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.regression import Regression

AnyTask = Annotated[Classification | Tagging | MultiLabel | Regression | Forecasting, Field(discriminator="task")]

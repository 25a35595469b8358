"""Tidegate: recurrent networks that train."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tidegate.version import __version__

if TYPE_CHECKING:
    from tidegate import nn
    from tidegate.api import find_rate, fit, load
    from tidegate.cells import Cell
    from tidegate.errors import BackendError, InputError, TidegateError
    from tidegate.estimators import Classifier, Forecaster, Regressor, Tagger
    from tidegate.model import Model
    from tidegate.nn.explain import explain
    from tidegate.text_estimators import LanguageModel, Translator

_HOME = {
    "nn": "tidegate.nn",
    "find_rate": "tidegate.api",
    "fit": "tidegate.api",
    "load": "tidegate.api",
    "Cell": "tidegate.cells",
    "BackendError": "tidegate.errors",
    "InputError": "tidegate.errors",
    "TidegateError": "tidegate.errors",
    "Classifier": "tidegate.estimators",
    "Forecaster": "tidegate.estimators",
    "Regressor": "tidegate.estimators",
    "Tagger": "tidegate.estimators",
    "LanguageModel": "tidegate.text_estimators",
    "Translator": "tidegate.text_estimators",
    "Model": "tidegate.model",
    "explain": "tidegate.nn.explain",
}

__all__ = [
    "BackendError",
    "Cell",
    "Classifier",
    "Forecaster",
    "InputError",
    "LanguageModel",
    "Model",
    "Regressor",
    "Tagger",
    "TidegateError",
    "Translator",
    "__version__",
    "explain",
    "find_rate",
    "fit",
    "load",
    "nn",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tidegate' has no attribute {name!r}")
    module = importlib.import_module(_HOME[name])
    value = module if name == "nn" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

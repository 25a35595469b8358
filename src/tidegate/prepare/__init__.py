"""Data and a configuration become a blueprint and two loaders, without leakage."""

from tidegate.prepare.base import Prepared as Prepared
from tidegate.prepare.plan import prepare as prepare
from tidegate.prepare.texts import prepare_texts as prepare_texts

"""Who may import whom: the layering, the forbidden neighbours, and the one home of each library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "tidegate"

# Each name is a file or package of src/tidegate. It may import its own group and those above it.
LAYERS: list[tuple[str, ...]] = [
    ("errors", "version"),
    ("shapes", "registry", "modes", "files", "config"),
    ("data",),
    ("cells",),
    ("compile",),
    ("nn",),
    ("tasks",),
    ("train",),
    ("doctor", "report"),
    (
        "blueprint", "prepare", "artifact", "trained", "model", "writers", "models", "estimator_tables", "inspection",
        "run", "text_estimators",
        "api", "estimators", "tune", "export", "serve",
    ),
    ("demo", "bench"),
    ("cli",),
    ("__main__",),
]  # fmt: skip
RANK = {name: rank for rank, group in enumerate(LAYERS) for name in group}

# What a package must not know although it stands above.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "cells": ("data",),
    "data": ("cells",),
    "compile": ("data", "cells"),
    "train": ("data", "cells", "nn", "tasks", "doctor"),
}
# The source of noise knows nothing of cells.
ALLOWED_THOUGH = {
    ("compile", "tidegate.cells.base"), ("compile", "tidegate.cells.noise"), ("cells", "tidegate.compile.drawing"),
}  # fmt: skip

NEVER = {"pandas", "pyarrow", "pickle", "cloudpickle", "dill", "lightning", "pytorch_lightning"}

# Where a library may be imported: a file, or what a package ("data/") or a name ("cli.") begins.
HOMES: dict[str, tuple[str, ...]] = {
    "accelerate": ("train/parallel.py",),
    "llvmlite": ("compile/llvm/",),
    "triton": ("compile/triton.py",),
    "polars": ("data/", "model.", "writers.", "estimator_tables.", "inspection.", "demo."),
    "typer": ("cli.", "cli/"),
    "click": ("cli.", "cli/"),
    "rich": ("train/progress.",),
    "jax": ("bench/jax_scan.",),
    # Estimators inherit its conventions; the demo trains on its digits.
    "sklearn": ("estimators.", "text_estimators.", "estimator_tables.", "demo."),
}
ONE_FILE = {
    "accelerate", "triton", "plotly", "torchmetrics", "tokenizers", "soundfile", "librosa",
    "PIL", "optuna", "fastapi", "uvicorn", "websockets", "onnx", "onnxscript", "onnxruntime", "tensorboard",
    "mlflow", "jax",
}  # fmt: skip
# These are imported inside the function that needs them, never while a module loads.
LAZY = ONE_FILE - {"accelerate"}


@dataclass(frozen=True)
class Import:
    """One import: the file and line it stands in, what it names, and when it happens."""

    file: str
    line: int
    target: str
    while_loading: bool
    for_types: bool

    @property
    def library(self) -> str:
        return self.target.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def module_name(file: str) -> str:
    """`cells/lstm.py` -> `tidegate.cells.lstm`; `cells/__init__.py` -> `tidegate.cells`."""
    parts = file.removesuffix(".py").split("/")
    return ".".join(["tidegate", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def owner(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imports_of(root: Path) -> list[Import]:
    files = sorted(root.rglob("*.py"))
    modules = {module_name(path.relative_to(root).as_posix()) for path in files}
    found = []
    for path in files:
        file = path.relative_to(root).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=file)
        found.extend(_walk(tree, file, modules, while_loading=True, for_types=False))
    return found


def _walk(node: ast.AST, file: str, modules: set[str], *, while_loading: bool, for_types: bool) -> Iterator[Import]:
    for target in _targets(node, file, modules):
        yield Import(file, node.lineno, target, while_loading and not for_types, for_types)  # type: ignore[attr-defined]
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for child in ast.iter_child_nodes(node):
        yield from _walk(
            child,
            file,
            modules,
            while_loading=while_loading and not inside,
            for_types=for_types or (typing_only and child in node.body),
        )


def _targets(node: ast.AST, file: str, modules: set[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        origin = _origin(node, file)
        named = [f"{origin}.{alias.name}" for alias in node.names]
        return [name if name in modules else origin for name in named]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {
        "import_module",
        "importlib.import_module",
        "__import__",
    }:
        first = node.args[0] if node.args else None
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []


def _origin(node: ast.ImportFrom, file: str) -> str:
    if node.level == 0:
        return node.module or ""
    package = ["tidegate", *file.split("/")[:-1]]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def layering(imports: list[Import]) -> list[str]:
    """Every import of a lower or unknown part of the package."""
    broken = []
    for item in imports:
        here, there = owner(item.file), item.target.removeprefix("tidegate").lstrip(".").partition(".")[0]
        if item.library != "tidegate" or here == "__init__" or here == there:
            continue
        unknown = [name for name in (here, there) if name and name not in RANK]
        if unknown:
            broken.append(f"{item}: {unknown[0]!r} has no place in LAYERS")
        elif not there:
            broken.append(f"{item}: the root is for users; name the module")
        elif RANK[there] > RANK[here] and (here, item.target) not in ALLOWED_THOUGH:
            broken.append(f"{item}: {there!r} stands below {here!r}")
    return broken


def neighbours(imports: list[Import]) -> list[str]:
    """Every import of a part that the importing package must not know."""
    return [
        f"{item}: {owner(item.file)!r} must not know it"
        for item in imports
        for banned in FORBIDDEN.get(owner(item.file), ())
        if f"{item.target}.".startswith(f"tidegate.{banned}.") and (owner(item.file), item.target) not in ALLOWED_THOUGH
    ]


def libraries(imports: list[Import]) -> list[str]:
    """Every library imported where it does not belong, in two files, or too early."""
    broken = [f"{item}: never used in this package" for item in imports if item.library in NEVER]
    used = [item for item in imports if not item.for_types]
    for item in used:
        homes = HOMES.get(item.library)
        if homes and not item.file.startswith(homes):
            broken.append(f"{item}: belongs in {' or '.join(homes)}")
        if item.library in LAZY and item.while_loading:
            broken.append(f"{item}: import it inside the function that needs it")
    for library in sorted(ONE_FILE):
        files = sorted({item.file for item in used if item.library == library})
        if len(files) > 1:
            broken.append(f"{library} is imported in {len(files)} files: {', '.join(files)}")
    return broken


def cycles(imports: list[Import]) -> list[str]:
    """Every module that reaches itself through imports made while loading."""
    edges: dict[str, set[str]] = {}
    for item in imports:
        here = module_name(item.file)
        if item.while_loading and item.library == "tidegate" and item.target != here:
            edges.setdefault(here, set()).add(item.target)
    broken = []
    for start in sorted(edges):
        seen, stack = set[str](), list(edges[start])
        while stack:
            module = stack.pop()
            if module not in seen:
                seen.add(module)
                stack.extend(edges.get(module, ()))
        if start in seen:
            broken.append(f"{start} imports itself through {', '.join(sorted(edges[start] & (seen | {start})))}")
    return broken


RULES = [layering, neighbours, libraries, cycles]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule) -> None:
    broken = rule(imports_of(SOURCE))
    assert not broken, "\n".join(dict.fromkeys(broken))


@pytest.mark.parametrize(
    ("rule", "file", "text", "says"),
    [
        (layering, "data/a.py", "from tidegate.nn import x", "'nn' stands below 'data'"),
        (layering, "cells/a.py", "def f():\n    from ..train import x", "a.py:2 imports tidegate.train"),
        (layering, "helpers.py", "import tidegate.errors", "'helpers' has no place"),
        (layering, "nn/a.py", "from tidegate import Classifier", "the root is for users"),
        (layering, "data/a.py", "if TYPE_CHECKING:\n    import tidegate.api", "'api' stands below"),
        (layering, "data/a.py", "import_module('tidegate.nn')", "'nn' stands below"),
        (neighbours, "cells/a.py", "import tidegate.data.batch", "'cells' must not know"),
        (neighbours, "compile/a.py", "from tidegate.cells.lstm import LSTM", "'compile' must not know"),
        (neighbours, "compile/a.py", "from tidegate.cells import LSTM", "'compile' must not know"),
        (neighbours, "train/a.py", "from tidegate.tasks.base import Task", "'train' must not know"),
        (libraries, "data/a.py", "def f():\n    import pandas as pd", "never used"),
        (libraries, "train/loop.py", "from accelerate import Accelerator", "belongs in train/parallel.py"),
        (libraries, "nn/a.py", "import polars as pl", "belongs in data/"),
        (libraries, "report/a.py", "import plotly.graph_objects as go", "inside the function"),
        (cycles, "nn/a.py", "import tidegate.nn.b", "tidegate.nn.a imports itself"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named(tmp_path: Path, rule, file: str, text: str, says: str) -> None:
    for name, content in {"nn/b.py": "import tidegate.nn.a", file: text}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    broken = rule(imports_of(tmp_path))
    assert any(says in line for line in broken), broken


def test_two_homes_are_one_too_many(tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("def f():\n    import plotly")
    assert libraries(imports_of(tmp_path)) == ["plotly is imported in 2 files: one.py, two.py"]


def test_allowed_imports_pass(tmp_path: Path) -> None:
    for name, text in {
        "errors.py": "",
        "cells/base.py": "from tidegate.errors import ShapeError",
        "compile/a.py": "from tidegate.cells.base import Cell\nfrom tidegate import errors",
        "train/parallel.py": "def f():\n    import accelerate",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = imports_of(tmp_path)
    assert len(found) == 4
    assert [broken for rule in RULES for broken in rule(found)] == []


def loaded_after(program: str, *names: str) -> list[str]:
    """Which of the modules `names` a fresh interpreter holds after running `program`."""
    report = f"\nimport sys\nprint('LOADED', *[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_help_does_not_import_torch() -> None:
    program = """
import sys
from tidegate.cli import main
sys.argv = ["tidegate", "--help"]
try:
    code = main()
except SystemExit as stop:
    code = stop.code
assert not code, f"--help exits with {code!r}"
"""
    assert loaded_after(program, "torch", "polars", "sklearn") == []


def test_the_root_imports_no_heavy_library() -> None:
    heavy = (
        "polars",
        "sklearn",
        "plotly",
        "accelerate",
        "torchmetrics",
        "pandas",
        "pyarrow",
        "llvmlite",
        "triton",
    )
    assert loaded_after("import tidegate", *heavy) == []


def test_a_loaded_module_is_seen() -> None:
    assert loaded_after("import json", "json", "sqlite3") == ["json"]

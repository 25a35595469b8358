"""The size and the names of the source: what keeps a file readable in one sitting."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tidegate

SOURCE = Path(__file__).resolve().parents[1] / "src" / "tidegate"
FILE_LINES = 400
FUNCTION_LINES = 60
EXPORTS_AT_MOST = 25
EXPORTS = [
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
HOMELESS = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}


def long_files(root: Path) -> list[str]:
    counts = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sorted(root.rglob("*.py"))}
    return [
        f"{path.relative_to(root)} has {lines} lines, at most {FILE_LINES}"
        for path, lines in counts.items()
        if lines > FILE_LINES
    ]


def long_functions(root: Path) -> list[str]:
    broken = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > FUNCTION_LINES:
                where = f"{path.relative_to(root)}:{node.lineno}"
                broken.append(f"{where} {node.name} has {code_lines(node)} lines, at most {FUNCTION_LINES}")
    return broken


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, the docstring left out."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is None:
        return total
    docstring = node.body[0]
    return total - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def homeless_names(root: Path) -> list[str]:
    paths = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.name != "__pycache__"]
    return [f"{path}: name it after the idea it serves" for path in paths if path.stem.lower() in HOMELESS]


RULES = [long_files, long_functions, homeless_names]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule) -> None:
    assert any(SOURCE.rglob("*.py"))
    broken = rule(SOURCE)
    assert not broken, "\n".join(broken)


def test_the_longest_allowed_passes_and_one_line_more_does_not(tmp_path: Path) -> None:
    file = tmp_path / "long.py"
    file.write_text("x = 1\n" * FILE_LINES)
    assert long_files(tmp_path) == []
    file.write_text("x = 1\n" * (FILE_LINES + 1))
    assert long_files(tmp_path) == [f"long.py has {FILE_LINES + 1} lines, at most {FILE_LINES}"]


def test_a_docstring_does_not_count(tmp_path: Path) -> None:
    docstring = '    """One.\n\n    Three.\n    """\n'
    file = tmp_path / "one.py"
    file.write_text("def f():\n" + docstring + "    x = 1\n" * (FUNCTION_LINES - 1))
    assert long_functions(tmp_path) == []
    file.write_text("def f():\n" + docstring + "    x = 1\n" * FUNCTION_LINES)
    assert long_functions(tmp_path) == [f"one.py:1 f has {FUNCTION_LINES + 1} lines, at most {FUNCTION_LINES}"]


@pytest.mark.parametrize("name", ["utils.py", "misc/a.py", "data/helpers.py"])
def test_a_homeless_name_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert len(homeless_names(tmp_path)) == 1


def test_the_root_exports_these_names_and_no_others() -> None:
    assert sorted(tidegate.__all__) == EXPORTS
    assert len(EXPORTS) <= EXPORTS_AT_MOST


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_name_is_there(name: str) -> None:
    assert getattr(tidegate, name) is not None

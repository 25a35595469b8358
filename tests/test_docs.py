"""Every example of the README and the documentation runs, in the order it is read."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent>\s*)(?P<ticks>`{3,}|~{3,})\s*(?P<language>[^\s`]*)[^`]*$")
# A Python or shell example under one of these names would not be run, so none may bear it.
UNRUN = {"py", "python3", "pycon", "ipython", "sh", "bash", "shell"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line its text begins on."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    opened: re.Match[str] | None = None
    start, held = 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, start, held = fence, number + 1, []
        elif opened is not None and line.strip() == opened["ticks"]:
            blocks.append(Block(opened["language"], textwrap.dedent("\n".join(held)), start))
            opened = None
        else:
            held.append(line)
    assert opened is None, f"{page}:{start - 1}: a block is opened and never closed"
    return blocks


def run_page(page: Path) -> int:
    """Run the page's examples in the current folder; return how many ran."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    ran = 0
    for block in blocks_of(page):
        assert block.language not in UNRUN, (
            f"{page}:{block.line}: {block.language!r} blocks are not run; use python or console"
        )
        if block.language == "python":
            run_python(page, block, namespace)
            ran += 1
        elif block.language == "console":
            ran += run_console(page, block)
    return ran


def run_python(page: Path, block: Block, namespace: dict[str, object]) -> None:
    # Padding with empty lines makes tracebacks name the page's own lines.
    text = "\n" * (block.line - 1) + block.text
    try:
        exec(compile(text, str(page), "exec"), namespace)
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(page)]
        line = lines[-1] if lines else getattr(error, "lineno", None) or block.line
        raise AssertionError(f"{page}:{line}: {type(error).__name__}: {error}") from error


def run_console(page: Path, block: Block) -> int:
    """Run each line that starts with `$ tidegate`; the other lines are output or another program's."""
    ran = 0
    text = re.sub(r"\\\n\s*", "", block.text)
    for number, line in enumerate(text.splitlines(), start=block.line):
        if not line.startswith("$ tidegate"):
            continue
        program = "import sys; from tidegate.cli import main; sys.exit(main())"
        arguments = shlex.split(line.removeprefix("$ tidegate"))
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, (
            f"{page}:{number}: {line!r} exits with {done.returncode}\n{done.stdout}{done.stderr}"
        )
        ran += 1
    return ran


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page)


def test_the_readme_has_examples() -> None:
    assert any(block.language == "python" for block in blocks_of(ROOT / "README.md"))


def test_every_option_and_its_default_is_documented() -> None:
    from tidegate.config import Config

    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = dict(line[1:].split("|")[:2] for line in text.splitlines() if line.startswith("| `"))
    documented = {name: default for names, default in table.items() for name in re.findall(r"`(\w+)`", names)}
    assert set(documented) == set(Config.model_fields)
    for name, field in Config.model_fields.items():
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert float(field.default) in [float(n) for n in re.findall(r"[\d.]+(?:e-\d+)?", documented[name])], name
        elif isinstance(field.default, str):
            assert f'"{field.default}"' in documented[name], name


def test_the_catalogue_has_every_cell_with_its_equations_and_its_source() -> None:
    from tidegate.cells import CELLS, FRAME_CELLS

    page = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    path = ROOT / "docs" / "hooks" / "catalogue.py"
    hook: dict[str, Any] = {"__name__": "catalogue"}
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), hook)
    written = hook["on_page_markdown"](page, page=None)
    assert hook["on_page_markdown"]("as it is", page=None) == "as it is"
    every = [*CELLS.items(), *FRAME_CELLS.items()]
    ours = {name: cell for name, cell in every if cell.__module__.startswith("tidegate.")}
    assert len(ours) >= 30
    for name, cell in ours.items():
        section = written.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f"| [`{name}`](#{name}) | `{cell.__name__}` |" in written
        assert re.search(r"^    .*=", section, re.MULTILINE) or "`h' = " in section, f"{name} has no equations"
        assert re.search(r"Source: .*(\d{4}|no publication)", section), f"{name} has no source"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```python\nx = 1\n```\n\n```python\n\nassert x == 2\n```\n", r"page\.md:7: AssertionError"),
        ("```python\nx = 1\nx = = 1\n```\n", r"page\.md:3: SyntaxError"),
        ("text\n\n```python title='a'\nimport tidegate.absent\n```\n", r"page\.md:4: ModuleNotFoundError"),
        ("=== tab\n    ```python\n    if True:\n        1 / 0\n    ```\n", r"page\.md:4: ZeroDivisionError"),
        ("```bash\ntidegate\n```\n", r"page\.md:2: 'bash' blocks are not run"),
        ("a\n```python\nx = 1\n", r"page\.md:2: a block is opened and never closed"),
        ("```console\n$ ls\nfile\n$ tidegate absent\n```\n", r"page\.md:4: '\$ tidegate absent' exits with"),
    ],
)  # fmt: skip
def test_a_failing_example_is_named(tmp_path: Path, text: str, says: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError, match=says):
        run_page(page)


def test_blocks_share_a_namespace_and_output_is_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```text\nno code\n```\n\n```python\nassert x == 1\n```\n")
    assert run_page(page) == 2

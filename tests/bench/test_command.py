"""`tidegate bench` from end to end, at a size that takes no time."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.bench import run
from tidegate.bench.first_call import FirstCall
from tidegate.bench.rows import Row
from tidegate.cli import main

WORDS = ["--cells", "elman,lstm_layer_norm", "--sizes", "2x4x3", "--quick", "--threads", "1"]


def tidegate(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["tidegate", "bench", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def no_first_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two new processes are for one test below."""
    monkeypatch.setattr(run, "first_call", lambda name, case, threads: FirstCall(name, "llvm", 0.5, 0.25))


def without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "jax" else find(name, *rest))


@pytest.mark.usefixtures("no_first_calls")
def test_the_command_shows_every_row_and_writes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_jax(monkeypatch)
    assert tidegate(monkeypatch, *WORDS, "--backend", "aten", "--out", str(tmp_path / "made")) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if re.match(r"(elman|lstm_layer_norm) ", line)]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (cell, "2x4x3", mode) for cell in ("elman", "lstm_layer_norm") for mode in ("forward", "train")
    ]
    assert [row[4] == "refuses" for row in rows] == [False, False, True, True]
    assert "note: jax is not installed, so jax.lax.scan is not timed" in said
    assert "geometric mean of 4 rows" in said
    assert "worst row: " in said
    assert "first call of lstm_layer_norm on llvm: 0.50 s, in a new process that finds compiled code 0.25 s" in said

    report = json.loads((tmp_path / "made" / "bench.json").read_text())
    assert [(row["cell"], row["mode"]) for row in report["rows"]] == [(row[0], row[2]) for row in rows]
    assert report["rows"][0]["milliseconds"].keys() == {"tidegate", "tidegate aten", "torch.nn", "torch loop"}
    assert report["threads"] == 1
    assert report["worst"]["ratio_to_best_peer"] == min(row["ratio_to_best_peer"] for row in report["rows"])

    page = (tmp_path / "made" / "bench.html").read_text()
    figures = json.loads(re.search(r"const FIGURES = (.*?);\n", page)[1])
    assert len(figures) == 2 + 2 * 2
    assert [trace["name"] for trace in figures[2]["data"]] == ["tidegate", "tidegate aten", "torch.nn", "torch loop"]
    assert page.count("<tr>") == 1 + 4 + 1 + 1
    assert not re.search(r'(src|href)="http', page.split("<script>")[0])


def test_what_was_measured_before_an_interrupt_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_jax(monkeypatch)
    measured = run.measure_size

    def interrupted(name: str, *given: object, **named: object) -> Iterator[Row]:
        if name == "lstm_layer_norm":
            raise KeyboardInterrupt
        return measured(name, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "measure_size", interrupted)
    assert tidegate(monkeypatch, *WORDS, "--out", str(tmp_path)) != 0
    report = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["cell"], row["mode"]) for row in report["rows"]] == [("elman", "forward"), ("elman", "train")]
    assert report["notes"][-1] == "interrupted after 2 rows"
    assert "interrupted after 2 rows" in (tmp_path / "bench.html").read_text()


@pytest.mark.parametrize("load", [0.1, 3.2])
@pytest.mark.usefixtures("no_first_calls")
def test_a_busy_machine_is_told(
    load: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_jax(monkeypatch)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    assert tidegate(monkeypatch, "--cells", "elman", *WORDS[2:], "--out", str(tmp_path)) == 0
    assert ("a load of 3.2 before the first row" in capsys.readouterr().out) is (load > 1)


@pytest.mark.usefixtures("no_first_calls")
def test_json_is_one_object_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_jax(monkeypatch)
    assert tidegate(monkeypatch, *WORDS[2:], "--cells", "gru", "--json", "--out", str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out)["geometric_mean"] > 0


@pytest.mark.usefixtures("no_first_calls")
def test_a_wrong_result_ends_with_exit_code_1_and_everything_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_jax(monkeypatch)
    monkeypatch.setattr("tidegate.bench.measure.TOLERANCE", -1.0)
    assert tidegate(monkeypatch, *WORDS, "--out", str(tmp_path)) == 1
    said = capsys.readouterr()
    assert said.out.count("WRONG, not timed: ") == 4
    assert "4 of 4 rows differ from the reference and were not timed" in said.out
    assert "comparing results before timing them; expected every output and gradient within" in said.err
    assert json.loads((tmp_path / "bench.json").read_text())["failed_rows"] == 4
    assert (tmp_path / "bench.html").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cells", "lstn"], "choosing the cell .*; expected a known .*; got 'lstn'; try: did you mean 'ls"),
        (["--sizes", "32*64"], r"reading --sizes; expected BATCHxUNITS .*; got '32\*64'; try: --sizes 32x64"),
        (["--backend", "aten,x"], "choosing the backend; expected a known backend; got 'x'; try: "),
        (["--threads", "0"], "reading --threads; expected a positive whole number; got 0; try: --threads 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_timed_is_refused(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tidegate(monkeypatch, *words, "--out", str(tmp_path / "made")) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_a_first_call_is_measured_in_a_process_of_its_own() -> None:
    from tidegate.bench.cases import CASES
    from tidegate.bench.first_call import first_call

    measured = first_call("gru", CASES["gru"], threads=1)
    assert measured.cell == "gru"
    assert measured.backend in run.BACKENDS
    assert 0 <= measured.kept < 60
    assert 0 <= measured.fresh < 60

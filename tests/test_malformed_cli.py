"""Malformed input through the command line: exit code 2, one clear message, no traceback, nothing half-written."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tidegate.cli import main

ROWS = [f"{i},{t},{(i % 2) * 2 + t / 10},{'ab'[t % 2]},{'yes' if i % 2 else 'no'}" for i in range(20) for t in range(4)]
HEADER = "id,t,x,kind,y"
GOOD = "\n".join([HEADER, *ROWS]) + "\n"
TRAIN = ["--target", "y", "--id", "id", "--time", "t", "--epochs", "2", "--hidden-size", "4", "--quiet"]
Tidegate = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "good.csv").write_text(GOOD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tidegate", "train", str(folder / "good.csv"), *TRAIN, "--out", str(folder / "RUN")])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder / "RUN"


def with_row(row: str, at: int = 10) -> str:
    return "\n".join([HEADER, *ROWS[:at], row, *ROWS[at:]]) + "\n"


def replaced(old: str, new: str, count: int = 1) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, count)


FILES: dict[str, tuple[str, str | bytes, list[str]]] = {
    "truncated gzip": ("d.csv.gz", gzip.compress(GOOD.encode())[:-30], ["d.csv.gz", "truncated"]),
    "ragged row": ("d.csv", with_row("9,9,9"), ["d.csv", "5 fields", "line 12"]),
    "long row": ("d.csv", with_row("9,9,9,a,no,extra"), ["d.csv", "line 12"]),
    "wrong delimiter": ("d.csv", HEADER + "\n" + "\n".join(ROWS).replace(",", ";"), ["d.csv", "semicolon"]),
    "mixed types": ("d.csv", with_row("9,9,oops,a,no"), ["d.csv", "'x'", "'oops'", "line 12"]),
    "infinite value": ("d.csv", with_row("9,9,inf,a,no"), ["d.csv", "'x'", "non-finite", "line 12"]),
    "duplicate id and time": ("d.csv", GOOD + ROWS[7] + "\n", ["d.csv", "rows 8 and 81"]),
    "missing id": ("d.csv", with_row(",9,1,a,no"), ["d.csv", "'id'", "row 11"]),
    "missing time": ("d.csv", with_row("9,,1,a,no"), ["d.csv", "'t'", "row 11"]),
    "one class only": ("d.csv", GOOD.replace("yes", "no"), ["d.csv", "'y'", "at least 2 classes"]),
    "empty file": ("d.csv", "", ["d.csv", "empty"]),
    "header only": ("d.csv", HEADER + "\n", ["d.csv", "header only"]),
    "huge field": ("d.csv", with_row("9,9,1," + "z" * 1_200_000 + ",no"), ["d.csv", "huge field", "'kind'"]),
    "bad UTF-8": ("d.csv", GOOD.encode().replace(b"a,no", b"\xe9,no", 1), ["d.csv", "UTF-8", "line 2"]),
    "NUL byte": ("d.csv", GOOD.replace("a,no", "\0,no", 1), ["d.csv", "NUL", "line 2"]),
    "duplicated header": ("d.csv", GOOD.replace("kind", "x", 1), ["d.csv", "'x'"]),
    "unclosed quote": ("d.csv", with_row('9,9,1,"a,no'), ["d.csv", "quote"]),
    "not Parquet": ("d.parquet", GOOD, ["d.parquet"]),
    "bad JSON": ("d.jsonl", '{"id": 1, "t": 1, "x": 1, "y": "no"}\n{"id"\n', ["d.jsonl", "line 2"]),
    "unknown ending": ("d.xlsx", b"PK", ["d.xlsx", ".csv"]),
    "sequence without steps": ("d.jsonl", '{"id": 1, "t": [1], "y": "no"}\n{"id": 2, "t": [], "y": "yes"}\n',
                               ["d.jsonl", "row 2"]),
    "lists of unequal length": ("d.jsonl", '{"id": 1, "t": [1, 2], "x": [1.0], "y": "no"}\n', ["d.jsonl", "row 1"]),
    "a single sequence": ("d.csv", "\n".join([HEADER, *(f"1,{i},1,a,no" for i in range(5))]), ["d.csv"]),
    "a target that is free": ("d.csv", GOOD.replace(",no", ",").replace(",yes", ","), ["'y'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_training_on_it(case: str, tidegate: Tidegate, tmp_path: Path) -> None:
    name, content, named = FILES[case]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    refused(tidegate("train", name, *TRAIN, "--out", "RUN"), named)
    assert [p.name for p in tmp_path.iterdir()] == [name], "something was left behind"


def refused(outcome: tuple[int, str, str], named: list[str]) -> None:
    code, out, err = outcome
    assert code == 2, err
    assert not out
    assert "Traceback" not in err
    assert [part for part in named if part not in err] == [], err


OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "unknown target": (["train", "good.csv", "--target", "z"], ["'z'", "a column of the table"]),
    "nearly a target": (["train", "good.csv", "--target", "kin"], ["'kin'", "did you mean 'kind'"]),
    "no target": (["train", "good.csv"], ["target"]),
    "unknown id": (["train", "good.csv", "--target", "y", "--id", "idd"], ["'idd'", "did you mean 'id'"]),
    "unknown time": (["train", "good.csv", "--target", "y", "--id", "id", "--time", "when"], ["'when'"]),
    "target that is the id": (["train", "good.csv", "--target", "id", "--id", "id"], ["neither id nor time"]),
    "unknown cell": (["train", "good.csv", *TRAIN, "--cell", "grru"], ["'grru'", "did you mean 'gru'"]),
    "unknown task": (["train", "good.csv", *TRAIN, "--task", "regresion"], ["task", "'regresion'"]),
    "task that does not fit": (["train", "good.csv", "--target", "kind", "--id", "id", "--task", "regression"],
                            ["'kind'", "numbers"]),
    "target that changes": (["train", "good.csv", "--target", "kind", "--id", "id", "--task", "classification"],
                            ["'kind'", "changes within sequence 0"]),
    "negative rate": (["train", "good.csv", *TRAIN, "--lr", "-1"], ["lr", "-1"]),
    "dropout of 1": (["train", "good.csv", *TRAIN, "--dropout", "1"], ["dropout", "1.0"]),
    "no epochs": (["train", "good.csv", *TRAIN, "--epochs", "0"], ["epochs", "0"]),
    "words for a number": (["train", "good.csv", *TRAIN, "--epochs", "ten"], ["--epochs", "valid integer"]),
    "unknown option": (["train", "good.csv", "--hiden-size", "3"], ["--hiden-size"]),
    "horizon too far": (["train", "good.csv", "--target", "x", "--id", "id", "--time", "t", "--horizon", "50"],
                        ["good.csv", "longest sequence of 4 steps"]),
    "no such file": (["train", "goood.csv", *TRAIN], ["goood.csv"]),
    "a folder": (["train", ".", *TRAIN], ["folder"]),
    "run folder in use": (["train", "good.csv", *TRAIN, "--out", "full"], ["full", "new or empty folder"]),
    "resume nothing": (["train", "--resume", "nowhere"], ["nowhere", "config.json"]),
    "resume what is no run": (["train", "--resume", "full", "--lr", "1"], ["full", "config.json"]),
    "resume elsewhere": (["train", "--resume", "full", "--out", "other"], ["full", "other"]),
    "infinite rate": (["train", "good.csv", *TRAIN, "--lr", "inf"], ["lr", "finite", "inf"]),
    "endless seed": (["train", "good.csv", *TRAIN, "--seed", "9" * 23], ["seed", "9" * 23]),
    "endless layer": (["train", "good.csv", *TRAIN, "--hidden-size", "9" * 11], ["hidden_size", "9" * 11]),
    "a target twice": (["train", "good.csv", *TRAIN, "--target", "y"], ["target", "each column once"]),
    "a fraction beyond 1": (["train", "good.csv", *TRAIN, "--valid", "3"], ["valid", "3.0"]),
    "no fraction": (["train", "good.csv", *TRAIN, "--valid", "nan"], ["valid", "finite"]),
    "neither fraction nor file": (["train", "good.csv", *TRAIN, "--valid", "abc"], ["valid='abc'", "a fraction"]),
    "a folder as configuration": (["train", "good.csv", *TRAIN, "--config", "."], ["configuration .", "directory"]),
    "a run in a file": (["train", "good.csv", *TRAIN, "--out", "good.csv/RUN"], ["good.csv/RUN", "Not a directory"]),
    "a run nowhere": (["train", "good.csv", *TRAIN, "--out", "/proc/RUN"], ["/proc/RUN"]),
    "a run with too long a name": (["train", "good.csv", *TRAIN, "--out", "n" * 300], ["nnn", "too long"]),
    "data with too long a name": (["train", "n" * 300, *TRAIN], ["nnn", "too long"]),
    "a table with too long a name": (["inspect", "n" * 300], ["nnn", "too long"]),
    "a run that is a file": (["train", "good.csv", *TRAIN, "--out", "good.csv"], ["good.csv", "a file"]),
    "a setting without a value": (["train", "good.csv", *TRAIN, "--set", "patience"], ["NAME=VALUE", "'patience'"]),
    "a setting nobody knows": (["train", "good.csv", *TRAIN, "--set", "patiense=3"], ["'patiense'", "'patience'"]),
    "a setting out of bounds": (["train", "good.csv", *TRAIN, "--set", "patience=0"], ["patience", "0"]),
    "no data": (["train"], ["a data file, or --resume RUN"]),
    "unknown setting": (["train", "good.csv", *TRAIN, "--config", "bad.json"], ["'hiden_size'", "did you mean"]),
    "broken configuration": (["train", "good.csv", *TRAIN, "--config", "broken.json"], ["broken.json", "JSON"]),
    "no configuration": (["train", "good.csv", *TRAIN, "--config", "none.json"], ["none.json"]),
    "evaluate nothing": (["evaluate", "nowhere", "good.csv"], ["nowhere"]),
    "evaluate a file": (["evaluate", "good.csv", "good.csv"], ["good.csv", "run folder"]),
    "evaluate an empty run": (["evaluate", "full", "good.csv"], ["model.json"]),
    "a text without its task": (["train", "poem.txt", *TRAIN], ["poem.txt", 'a text is for task="generate"']),
    "two targets of texts": (["train", "poem.txt", "--target", "poem.txt", "--target", "none.txt", "--task",
                              "translate"], ["expected one target"]),
    "a column of a text": (["train", "poem.txt", "--target", "poem", "--task", "generate"], ["target='", "poem'"]),
    "sources to validate on alone": (["train", "poem.txt", "--target", "poem.txt", "--task", "translate", "--valid",
                                      "poem.txt"], ["valid_target= beside valid="]),
    "a curve over the data": (["find-rate", "good.csv", "--target", "y", "--id", "id", "--time", "t", "--out",
                               "good.csv"], ["another file than the data"]),
    "a curve nowhere": (["find-rate", "good.csv", "--target", "y", "--id", "id", "--out", "none/c.html"],
                        ["none/c.html", "no folder none"]),
    "one file for two": (["translate", "full", "poem.txt", "-o", "same.html", "--alignment", "same.html"],
                         ["a file each for -o and --alignment"]),
    "inspect nothing": (["inspect", "none.csv"], ["none.csv"]),
    "inspect an unknown target": (["inspect", "good.csv", "--target", "z"], ["'z'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_what_was_asked(case: str, tidegate: Tidegate, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "bad.json").write_text('{"hiden_size": 3}')
    (tmp_path / "broken.json").write_text('{"lr": ')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "poem.txt").write_text("how much wood\n" * 9)
    before = sorted(tmp_path.rglob("*"))
    refused(tidegate(*OPTIONS[case][0]), OPTIONS[case][1])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_where_runs_go(tidegate: Tidegate, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "runs").write_text("mine")
    refused(tidegate("train", "good.csv", *TRAIN), ["runs/good-1"])
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.parametrize("made_before", [True, False])
def test_a_refused_run_removes_what_it_made(made_before: bool, tidegate: Tidegate, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    if made_before:
        (tmp_path / "a").mkdir()
    refused(tidegate("train", "good.csv", "--target", "zz", "--out", "a"), ["'zz'"])
    refused(tidegate("train", "good.csv", "--target", "zz", "--out", "a/b/c"), ["'zz'"])
    assert sorted(p.name for p in tmp_path.rglob("*")) == (["a", "good.csv"] if made_before else ["good.csv"])


PREDICTED: dict[str, tuple[str, list[str]]] = {
    "a column is gone": (GOOD.replace("kind", "sort", 1), ["d.csv", "'kind'", "trained on"]),
    "text where numbers were": (replaced(",2.0,", ",two,", 10), ["d.csv", "'x'", "'two'"]),
    "ragged": (with_row("1,2"), ["d.csv", "line 12"]),
}


@pytest.mark.parametrize("case", PREDICTED)
def test_predicting_on_it(case: str, tidegate: Tidegate, tmp_path: Path, trained: Path) -> None:
    content, named = PREDICTED[case]
    (tmp_path / "d.csv").write_text(content)
    refused(tidegate("predict", str(trained), "d.csv", "-o", "out.csv"), named)
    assert [p.name for p in tmp_path.iterdir()] == ["d.csv"]


def test_a_class_never_trained_on_is_named(tidegate: Tidegate, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "d.csv").write_text(GOOD.replace("yes", "perhaps"))
    refused(tidegate("evaluate", str(trained), "d.csv"), ["'y'", "'perhaps'"])


@pytest.mark.parametrize("output", ["out.xlsx", "nowhere/out.csv", ".", "/proc/out.csv", "d.csv", "./d.csv"])
def test_an_output_that_cannot_be(output: str, tidegate: Tidegate, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "d.csv").write_text(GOOD)
    refused(tidegate("predict", str(trained), "d.csv", "-o", output), ["writing predictions"])
    assert [p.name for p in tmp_path.iterdir()] == ["d.csv"]
    assert (tmp_path / "d.csv").read_text() == GOOD


def test_an_output_that_links_to_the_data(tidegate: Tidegate, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "d.csv").write_text(GOOD)
    (tmp_path / "link.csv").symlink_to("d.csv")
    refused(tidegate("predict", str(trained), "d.csv", "-o", "link.csv"), ["the data itself"])


@pytest.mark.parametrize("damage", ["flip", "remove", "empty"])
@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "config.json"])
def test_a_damaged_run_folder(name: str, damage: str, tidegate: Tidegate, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "d.csv").write_text(GOOD)
    shutil.copytree(trained, tmp_path / "RUN")
    path = tmp_path / "RUN" / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 3] ^= 8
        path.write_bytes(content if damage == "flip" else b"")
    words = ["train", "--resume", "RUN"] if name == "config.json" else ["predict", "RUN", "d.csv", "-o", "out.csv"]
    refused(tidegate(*words), [name])
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--lr", "1"], "'lr' as the run was started with, 0.003; got 1.0"),
        (["--valid", "0.4"], "'valid' as the run was started with, 0.15; got 0.4"),
        (["--valid", "other.csv"], "'valid' as the run was started with, None; got 'other.csv'"),
        (["--config", "other.json"], "'layers' as the run was started with, 1; got 2"),
    ],
)
@pytest.mark.parametrize("with_data", [True, False])
def test_a_run_resumes_as_it_was_started(
    with_data: bool, words: list[str], named: str, tidegate: Tidegate, tmp_path: Path, trained: Path
) -> None:
    (tmp_path / "other.csv").write_text(GOOD)
    (tmp_path / "other.json").write_text('{"layers": 2}')
    data = [str(trained.parent / "good.csv")] if with_data else []
    assert tidegate("train", *data, *TRAIN, "--resume", str(trained))[0] == 0
    refused(tidegate("train", *data, *TRAIN, "--resume", str(trained), *words), [named])
    refused(tidegate("train", "other.csv", *TRAIN, "--resume", str(trained)), ["'data' as the run was started with"])


def test_its_configuration_reproduces_a_run(tidegate: Tidegate, tmp_path: Path, trained: Path) -> None:
    words = ["train", str(trained.parent / "good.csv"), "--config", str(trained / "config.json"), "--out", "AGAIN"]
    assert tidegate(*words)[0] == 0
    again = (tmp_path / "AGAIN" / "model.safetensors").read_bytes()
    assert again == (trained / "model.safetensors").read_bytes()


def test_any_option_can_be_set(tidegate: Tidegate, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(GOOD)
    words = ["--set", "patience=null", "--set", "schedule=plateau", "--set", 'kinds={"x": "category"}']
    assert tidegate("train", "d.csv", *TRAIN, *words, "--out", "RUN")[0] == 0
    config = json.loads((tmp_path / "RUN" / "config.json").read_text())["config"]
    assert (config["patience"], config["schedule"], config["kinds"]) == (None, "plateau", {"x": "category"})


def test_a_sequence_without_a_label_is_left_out_and_said(tidegate: Tidegate, tmp_path: Path) -> None:
    rows = [row.removesuffix("yes") if row.startswith("3,") else row for row in ROWS]
    (tmp_path / "d.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    code, _, err = tidegate("train", "d.csv", *[word for word in TRAIN if word != "--quiet"], "--out", "RUN")
    assert code == 0, err
    assert "note: d.csv: 1 of 20 sequences have no target and are left out" in err


def test_unsorted_time_and_new_categories_are_handled_and_said(
    tidegate: Tidegate, tmp_path: Path, trained: Path
) -> None:
    (tmp_path / "d.csv").write_text("\n".join([HEADER, *reversed(ROWS)]).replace(",a,", ",c,") + "\n")
    code, _, err = tidegate("predict", str(trained), "d.csv", "-o", "out.csv")
    assert code == 0
    assert "sorted by time" in err
    assert "'kind'" in err
    assert pl.read_csv(tmp_path / "out.csv").height == 20


DAYS, LATER = 12, 2
STAMPED = [
    {"id": f"00{i}", "when": f"{1 + t:02}.03.2024 06:30", "x": f"{i + t / 10}", "tag": "ab"[t % 2], "kind": "uv"[i % 2]}
    for i in range(8)
    for t in range(DAYS + LATER)
]
# Options, the columns to join by, and how many of the rows, those of later days included, find a prediction.
JOINS: dict[str, tuple[list[str], list[str], int]] = {
    "a class a sequence": (["--target", "kind"], ["id"], 8 * (DAYS + LATER)),
    "tags": (["--target", "tag"], ["id", "when"], 8 * DAYS),
    "forecasts": (["--target", "x", "--horizon", str(LATER)], ["id", "when"], 8 * LATER),
}


@pytest.fixture(scope="session", params=JOINS)
def stamped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], int]:
    """A run of each task on text timestamps and padded ids."""
    folder = tmp_path_factory.mktemp("stamped")
    options, keys, rows = JOINS[request.param]
    table = pl.DataFrame(STAMPED).filter(pl.col("when").str.slice(0, 2).cast(int) <= DAYS)
    table.write_csv(folder / "d.csv")
    by = ["--id", "id", "--time", "when", "--epochs", "1", "--hidden-size", "4", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv", ["tidegate", "train", str(folder / "d.csv"), *options, *by, "--out", str(folder / "RUN")]
        )
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder, keys, rows


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_predictions_join_back(
    ending: str, stamped: tuple[Path, list[str], int], tidegate: Tidegate, tmp_path: Path
) -> None:
    folder, keys, rows = stamped
    assert tidegate("predict", str(folder / "RUN"), str(folder / "d.csv"), "-o", f"out.{ending}")[0] == 0
    path = tmp_path / f"out.{ending}"
    if ending == "csv":
        guess = pl.read_csv(path, infer_schema=False)
    else:
        guess = pl.read_parquet(path) if ending == "parquet" else pl.read_ndjson(path)
    assert guess.select(keys).is_unique().all()
    joined = pl.DataFrame(STAMPED).join(guess, on=keys, suffix="_guess")
    assert joined.height == rows
    assert sum(name.endswith("_guess") for name in joined.columns) == 1


def test_json_is_one_object_and_nothing_else(tidegate: Tidegate, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "d.csv").write_text(GOOD)
    train = ["train", "d.csv", *TRAIN, "--out", "RUN", "--json"]
    again = ["train", "--resume", "RUN", "--json"]
    for words in (["evaluate", str(trained), "d.csv", "--json"], ["inspect", "d.csv", "--json"], train, again):
        code, out, err = tidegate(*words)
        assert code == 0, err
        assert isinstance(json.loads(out), dict)
        assert not err

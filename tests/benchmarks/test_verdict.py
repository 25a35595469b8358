"""What runs come to."""

from __future__ import annotations

import dataclasses
import math

import pytest
from trials import arms, copying, page, records
from trials.arms import Arm, Check, Row, Task, digest
from trials.catalogue import TASKS
from trials.copying import Copying
from trials.records import Record
from trials.verdict import checked, successes, verdicts

TASK = Task(
    Copying(steps=10, goal=0.1),
    (Arm("plain"), Arm("better")),
    (Row("a technique", "plain", "better"),),
    (Check("most succeed", "better", lambda r: successes(r) >= 0.8),),
)


def record(arm: str, seed: int, best: float, reached: int | None = None) -> Record:
    return Record("copy", arm, seed, "d", [[10, best, best]], best, reached, None, None, 1.0, 2.0)


def runs(plain: list[tuple[float, int | None]], better: list[tuple[float, int | None]]) -> list[Record]:
    return [record(arm, s, *one) for arm, all in (("plain", plain), ("better", better)) for s, one in enumerate(all)]


def test_gains_are_taken_seed_by_seed_over_the_seeds_both_have() -> None:
    (verdict,) = verdicts("copy", TASK, runs([(0.5, None), (0.9, None), (9.0, None)], [(0.3, None), (0.5, None)]))
    assert verdict.gain == pytest.approx(0.3)
    assert verdict.error == pytest.approx(math.sqrt(2) * 0.1 / math.sqrt(2))
    assert (verdict.off.runs, verdict.on.runs) == (2, 2)
    assert verdict.off.figure == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("plain", "better", "says"),
    [
        ([(0.5, None)] * 3, [(0.1, 20)] * 3, "more runs succeed"),
        ([(0.1, 20)] * 3, [(0.1, 20), (0.5, None), (0.5, None)], "fewer runs succeed"),
        ([(0.1, 20)] * 3, [(0.1, 20), (0.1, 20), (0.5, None)], "no clear difference here"),
        ([(0.1, 50), (0.1, 60), (0.1, 40)], [(0.1, 20), (0.1, 20), (0.1, 20)], "2.5 × as fast to the goal"),
        ([(0.1, 60), (0.1, 30)], [(0.1, 20), (0.1, 20)], "no clear difference here"),
        ([(0.1, 8), (0.1, 9), (0.1, 8), (0.5, None)], [(0.1, 2)] * 4, "4.4 × as fast to the goal"),
        ([(0.5, None), (0.6, None)], [(0.4, None), (0.501, None)], "improves the figure"),
        ([(0.5, None), (0.6, None)], [(0.4, None), (0.52, None)], "no clear difference here"),
        ([(0.4, None), (0.501, None)], [(0.5, None), (0.6, None)], "does not improve here: worse"),
        ([(0.5, None), (0.6, None)], [(0.4, None), (0.7, None)], "no clear difference here"),
        ([(0.5, None)], [(0.4, None)], "one seed only"),
        ([(0.5, None)] * 2, [(math.inf, None)] * 2, "a side diverges"),
        ([(math.inf, None)] * 2, [(math.inf, None)] * 2, "a side diverges"),
    ],
)
def test_a_row_says_what_it_shows(plain, better, says) -> None:
    (verdict,) = verdicts("copy", TASK, runs(plain, better))
    assert verdict.says == says


def test_a_row_of_which_one_side_was_not_run_is_left_out_and_so_is_its_check() -> None:
    alone = [r for r in runs([(0.5, None)], [(0.1, 5)]) if r.arm == "plain"]
    assert verdicts("copy", TASK, alone) == []
    assert checked("copy", TASK, alone) == []


def test_checks_hold_or_fail_by_the_records() -> None:
    four = runs([], [(0.1, 5)] * 4 + [(0.5, None)])
    (check,) = checked("copy", TASK, four)
    assert check.holds
    assert check.figures == "0.1, 0.1, 0.1, 0.1, 0.5"
    (check,) = checked("copy", TASK, four[1:])
    assert check.holds is None
    wild = [dataclasses.replace(four[0], failed="the loss is nan"), *four[1:]]
    (check,) = checked("copy", TASK, wild)
    assert check.holds is False


def test_a_problem_says_what_reaches_its_goal_and_what_is_best() -> None:
    problem = TASK.problem
    assert problem.reaches(0.1)
    assert not problem.reaches(0.11)
    assert not problem.reaches(math.nan)
    assert problem.best([0.3, 0.2, 0.4]) == 0.2
    assert problem.best([]) == math.inf


def test_records_come_back_as_written_and_a_line_cut_off_is_dropped(tmp_path) -> None:
    path = tmp_path / "out" / "runs.jsonl"
    both = runs([(0.5, None)], [(math.inf, 3)])
    for each in both:
        records.append(path, each)
    assert records.read(path) == both
    whole = path.read_text()
    path.write_text(whole + '{"task": "copy", "ar')
    assert records.read(path) == both
    assert path.read_text() == whole
    records.append(path, record("better", 0, 0.2))
    assert [r.best for r in records.read(path)] == [0.5, 0.2]


def test_a_run_is_another_where_its_settings_or_its_problem_are() -> None:
    plain, other = Arm("plain"), Arm("plain", settings={"lr": 0.1})
    assert digest(TASK.problem, plain) == digest(TASK.problem, Arm("renamed", seeds=3))
    different = {
        digest(TASK.problem, plain),
        digest(TASK.problem, other),
        digest(TASK.problem, plain, quick=True),
        digest(Copying(steps=20), plain),
    }
    assert len(different) == 4


@pytest.mark.parametrize("name", TASKS)
def test_the_code_of_a_task_is_told_alike_by_every_process(name) -> None:
    assert not [each for each in arms._code(type(TASKS[name].problem).__module__) if " at 0x" in each]


def test_a_run_is_another_where_the_code_of_its_task_is(monkeypatch) -> None:
    before = digest(TASK.problem, Arm("plain"))
    monkeypatch.setattr(copying, "SAID", 11)
    arms._code.cache_clear()
    after = digest(TASK.problem, Arm("plain"))
    arms._code.cache_clear()
    assert after != before


def test_a_few_large_figures_do_not_hide_the_others() -> None:
    usual = [0.1 + 0.001 * i for i in range(100)]
    assert page._bounds(usual) is None
    assert page._bounds([]) is None
    low, high = page._bounds([*usual, 1500.0])
    assert low == pytest.approx(0.1)
    assert 0.199 < high < 0.25

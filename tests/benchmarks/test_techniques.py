"""The whole script, a few steps of it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import techniques
from trials import pool, run
from trials.arms import Arm, Task
from trials.catalogue import TASKS
from trials.order import Order

from tidegate.train.regularise import make_regulariser
from tidegate.train.settings import TrainSettings


def test_every_row_and_check_names_arms_of_its_task_and_every_arm_is_used() -> None:
    for name, task in TASKS.items():
        arms = [arm.name for arm in task.arms]
        assert len(set(arms)) == len(arms)
        used = {a for row in task.rows for a in (row.off, row.on)} | {check.arm for check in task.checks}
        assert used == set(arms), name


BUDGET = ("epochs", "lr", "schedule", "weight_decay", "patience")
NOT_ALIKE = {("reber", "LSTM, Elman's network as published")}


def test_both_sides_of_every_row_have_one_budget_and_differ_in_one_way() -> None:
    for name, task in TASKS.items():
        for row in task.rows:
            off, on = task.arm(row.off), task.arm(row.on)
            assert [off.settings.get(key) for key in BUDGET] == [on.settings.get(key) for key in BUDGET], row
            assert off.seeds == on.seeds
            settings = off.settings != on.settings or off.reads != on.reads
            other = [off.cell != on.cell, off.inside != on.inside, off.around != on.around, settings]
            assert sum(other) == 1 or (name, row.technique) in NOT_ALIKE, row


@pytest.mark.parametrize("name", [n for n, task in TASKS.items() if task.problem.needs is None])
def test_every_arm_that_needs_no_data_can_be_built(name) -> None:
    task = TASKS[name]
    for arm in task.arms:
        network = task.problem.network(arm.kind, arm.hidden, dict(arm.inside), dict(arm.around))
        assert make_regulariser(network, TrainSettings.model_validate({**arm.settings}))
        assert all(weight.isfinite().all() for weight in network.parameters()), arm.name


def test_a_quick_run_writes_everything_and_a_second_start_repeats_nothing(tmp_path, capsys, monkeypatch) -> None:
    asked = ["--only", "order", "--seeds", "2", "--quick", "--workers", "1", "--out", str(tmp_path)]
    techniques.main(asked)
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 2 * len(TASKS["order"].arms)
    (tmp_path / "runs.jsonl").write_text("\n".join(lines[1:]) + "\n")
    done = []
    real = pool.do
    monkeypatch.setattr(pool, "do", lambda job: done.append(job) or real(job))
    capsys.readouterr()
    techniques.main(asked)
    assert [(job.arm, job.seed) for job in done] == [(TASKS["order"].arms[0].name, 0)]
    again = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    first = json.loads(lines[0])
    assert {k: again[-1][k] for k in ("curve", "best", "digest")} == {k: first[k] for k in ("curve", "best", "digest")}
    assert "clipping by norm" in capsys.readouterr().out
    assert "temporal order" in (tmp_path / "techniques.html").read_text()


def test_it_runs_in_processes_of_its_own(tmp_path) -> None:
    command = [sys.executable, techniques.__file__, "--only", "reber", "--seeds", "1", "--quick"]
    subprocess.run([*command, "--workers", "2", "--out", str(tmp_path)], check=False, cwd=tmp_path, timeout=300)
    arms = {json.loads(line)["arm"] for line in (tmp_path / "runs.jsonl").read_text().splitlines()}
    assert arms == {arm.name for arm in TASKS["reber"].arms}


def test_tasks_without_their_data_are_left_out_and_named(tmp_path, capsys) -> None:
    techniques.main(["--only", "chorales", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert "chorales is left out: no music" in capsys.readouterr().err


def test_a_run_stops_at_the_goal_and_a_run_that_diverges_has_no_success() -> None:
    problem = Order(steps=2, batch=4, goal=0.0)
    task = Task(problem, (Arm("easy", "rnn", 4, settings={"epochs": 5}),), ())
    easy = run.run("order", task, task.arms[0], 0, Path())
    assert (easy.reached, len(easy.curve), easy.failed) == (2, 1, None)
    wild = Arm("wild", "rnn", 4, inside={"activation": "relu"}, settings={"epochs": 5, "lr": 1e30, "optimizer": "sgd"})
    hard = dataclasses.replace(task, problem=Order(steps=60, batch=4, goal=1.0))
    record = run.run("order", hard, wild, 0, Path())
    assert record.reached is None
    assert record.failed is not None


@pytest.mark.data
def test_real_data_come_as_they_are_described(shared_data) -> None:
    music = TASKS["chorales"].problem
    parts = [music.train(0, shared_data, None), music.valid(shared_data, None), music.test(shared_data)]
    assert [part.count for part in parts] == [229, 76, 77]
    batch = next(parts[1].batches(0))
    assert batch.x.shape[2] == batch.y.shape[2] == 88
    assert (batch.x[:, 1:] == batch.y[:, :-1])[0, : batch.lengths[0] - 1].all()
    rows = TASKS["mnist-rows"].problem
    assert [rows.train(0, shared_data, None).count, rows.valid(shared_data, None).count] == [55_000, 5_000]
    assert next(rows.valid(shared_data, None).batches(0)).x.shape[1:] == (28, 28)
    text = TASKS["characters"].problem
    batch = next(text.train(0, shared_data, None).batches(0))
    assert (batch.x[:, 1:] == batch.y[:, :-1]).all()
    assert int(batch.x.max()) < 65

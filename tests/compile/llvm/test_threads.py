"""Compiled functions on torch's threads: all at once, all the work once, and never stuck after a fork."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tidegate.compile.llvm import threads
from tidegate.compile.llvm.engine import compile_module

# Both functions take a pointer to i64 numbers.
# share: {next, count, results…}: takes the next number until `count` are taken; results[i] += i * i.
# meet:  {arrived, wanted, met, patience}: waits until `wanted` have arrived, or gives up; met += 1 if they came.
TEXT = """
define void @share(ptr %a) {
entry:
  %pcount = getelementptr i64, ptr %a, i64 1
  %results = getelementptr i64, ptr %a, i64 2
  %count = load i64, ptr %pcount, align 8
  br label %take
take:
  %i = atomicrmw add ptr %a, i64 1 monotonic
  %some = icmp slt i64 %i, %count
  br i1 %some, label %work, label %end
work:
  %p = getelementptr i64, ptr %results, i64 %i
  %old = load i64, ptr %p, align 8
  %square = mul i64 %i, %i
  %new = add i64 %old, %square
  store i64 %new, ptr %p, align 8
  br label %take
end:
  ret void
}
define void @meet(ptr %a) {
entry:
  %pwanted = getelementptr i64, ptr %a, i64 1
  %pmet = getelementptr i64, ptr %a, i64 2
  %ppatience = getelementptr i64, ptr %a, i64 3
  %wanted = load i64, ptr %pwanted, align 8
  %patience = load i64, ptr %ppatience, align 8
  %before = atomicrmw add ptr %a, i64 1 seq_cst
  br label %wait
wait:
  %turn = phi i64 [0, %entry], [%next, %again]
  %now = load atomic i64, ptr %a seq_cst, align 8
  %all = icmp sge i64 %now, %wanted
  br i1 %all, label %met, label %again
again:
  %next = add i64 %turn, 1
  %tired = icmp sge i64 %next, %patience
  br i1 %tired, label %end, label %wait
met:
  %one = atomicrmw add ptr %pmet, i64 1 seq_cst
  br label %end
end:
  ret void
}
"""
PATIENCE = 3_000_000_000

openmp = pytest.mark.skipif(threads._parallel() is None, reason="torch has no OpenMP runtime with GOMP_parallel here")


@pytest.fixture(scope="module")
def addresses() -> dict[str, int]:
    return compile_module(TEXT, ["share", "meet"]).addresses


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_share_the_work_and_do_each_piece_once(addresses: dict[str, int], count: int) -> None:
    size = 20_000
    for _ in range(20):
        argument = np.zeros(size + 2, np.int64)
        argument[1] = size
        threads.run(addresses["share"], argument.ctypes.data, count)
        assert np.array_equal(argument[2:], np.arange(size) ** 2)


@openmp
@pytest.mark.parametrize("count", [2, 3])
def test_as_many_threads_as_asked_run_at_once(addresses: dict[str, int], count: int) -> None:
    argument = np.array([0, count, 0, PATIENCE], np.int64)
    threads.run(addresses["meet"], argument.ctypes.data, count)
    assert argument[:3].tolist() == [count, count, count]  # nobody met who was alone


def test_one_thread_runs_once_here(addresses: dict[str, int]) -> None:
    argument = np.array([0, 2, 0, 1000], np.int64)
    threads.run(addresses["meet"], argument.ctypes.data, 1)
    assert argument[:3].tolist() == [1, 2, 0]


@pytest.mark.parametrize("count", [1, 2])
def test_python_runs_meanwhile(addresses: dict[str, int], count: int) -> None:
    """The compiled function waits for an arrival that only another Python thread can make."""
    argument = np.array([0, 3 if count == 2 else 2, 0, PATIENCE], np.int64)
    body = threading.Thread(target=threads.run, args=(addresses["meet"], argument.ctypes.data, count))
    body.start()
    meet = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(addresses["meet"])
    meet(argument.ctypes.data)
    body.join()
    met = count + 1 if threads._parallel() else 2
    assert argument[2] == met


def test_a_runtime_without_parallel_regions_is_one_thread(
    addresses: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_parallel", lambda: None)
    argument = np.array([0, 2, 0, 1000], np.int64)
    threads.run(addresses["meet"], argument.ctypes.data, 2)
    assert argument[:3].tolist() == [1, 2, 0]


@openmp
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the process's memory map")
def test_the_runtime_is_the_one_torch_runs_on() -> None:
    """A process may hold several OpenMP runtimes; scikit-learn brings its own."""
    program = """
import ctypes, sklearn.utils, torch
import sklearn.utils._openmp_helpers
from tidegate.compile.llvm import threads
address = ctypes.cast(threads._parallel(), ctypes.c_void_p).value
for line in open("/proc/self/maps"):
    span, *rest = line.split()
    first, last = (int(part, 16) for part in span.split("-"))
    if first <= address < last:
        print(rest[-1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    linked = subprocess.run(
        [sys.executable, "-c", "import torch; print(open('/proc/self/maps').read())"], capture_output=True, text=True
    )
    assert done.stdout.strip(), done.stderr
    assert done.stdout.strip() in linked.stdout


FORK = """
import os, sys, warnings
import numpy as np
import torch
from torch.utils.data import DataLoader
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
from test_threads import TEXT
from tidegate.compile.llvm import threads
from tidegate.compile.llvm.engine import compile_module

address = compile_module(TEXT, ["share"]).addresses["share"]

def squares(size, address=address):
    argument = np.zeros(size + 2, np.int64)
    argument[1] = size
    threads.run(address, argument.ctypes.data, 2)
    return argument[2:].tolist()

class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return torch.tensor(squares(index + 3))

assert squares(4) == [0, 1, 4, 9]  # the runtime's threads exist from here on
child = os.fork()
if child == 0:
    fresh = compile_module(TEXT + "; another module", ["share"]).addresses["share"]
    os._exit(0 if squares(4) == squares(4, fresh) == [0, 1, 4, 9] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for _ in range(2):
    loaded = [row[0].tolist() for row in DataLoader(Squares(), num_workers=2, multiprocessing_context="fork")]
    assert loaded == [[i * i for i in range(index + 3)] for index in range(4)]
assert squares(4) == [0, 1, 4, 9]
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_processes_do_not_wait_for_threads_that_stayed_behind() -> None:
    command = [sys.executable, "-c", FORK, os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "done", done.stderr

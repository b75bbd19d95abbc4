"""Tasks in processes give what they give one after the other, see the same settings, and fail without the others."""

import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from contextlib import contextmanager
from functools import partial

import psutil
import pytest
import torch

from saliency_lib.runtime import parallel, workers


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    monkeypatch.setenv("SALIENCY_PROCESSES", "2")


def square(x):
    if x == 13:
        raise ValueError("13 is not for squaring")
    return x * x


@pytest.mark.parametrize("name", parallel.EXECUTORS)
def test_every_item_comes_back_with_its_result(name):
    assert dict(parallel.run(square, range(9), name)) == {x: x * x for x in range(9)}
    assert dict(parallel.run(square, [], name)) == {}
    with pytest.raises((ValueError, parallel.TasksFailed), match="13 is not for squaring"):
        list(parallel.run(square, [1, 13, 2], name))
    assert dict(parallel.run(square, [3], name)) == {3: 9}, "still works after a failure"


def process(_):
    return os.getpid()


def test_processes_share_a_gpu_where_the_user_says_how_many(monkeypatch):
    found = {pid for _, pid in parallel.run(process, range(4), "processes", "cuda")}
    assert os.getpid() not in found and len(found) <= 2
    monkeypatch.delenv("SALIENCY_PROCESSES")
    assert {pid for _, pid in parallel.run(process, range(4), "processes", "cuda")} == {os.getpid()}
    monkeypatch.setattr(workers, "cores", lambda: 3)
    assert workers.processes() == 3 and workers.processes("cuda") == 1


def slept(seconds):
    time.sleep(seconds)
    return seconds


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_results_come_in_order_and_items_are_asked_for_when_a_worker_is_free(name):
    asked = []
    items = (asked.append(k) or 0.4 / (1 + k) for k in itertools.count())
    found = parallel.ordered(slept, items, name)
    for k in range(6):
        assert next(found) == 0.4 / (1 + k)
    assert len(asked) <= 6 + 6, "as many as were done early, and no others than those under way"
    found.close()
    last = len(asked)
    serially = parallel.run(slept, items)
    next(serially)
    assert len(asked) == last + 1


def test_an_unknown_executor_is_named():
    known = r"\['dask', 'processes', 'serial'\], or a Dask scheduler's address such as tcp://host:8786"
    with pytest.raises(ValueError, match=f"unknown executor 'cluster'; one of {known}"):
        parallel.check("cluster")
    with pytest.raises(ValueError, match="unknown executor 'cluster'"):
        next(parallel.run(square, [1], "cluster"))
    parallel.check("tcp://host:8786")


LEFT = []


def leaves_much_in_memory(k):
    time.sleep(1.2)  # loky looks at a worker's memory once a second
    LEFT.append(bytearray(os.urandom(1)) * 400_000_000)
    return os.getpid()


def test_a_worker_that_loky_replaces_since_its_memory_has_grown_costs_no_task():
    """loky warns of it in its own thread, which ends, and leaves every caller waiting, if that is made an error."""
    found = dict(parallel.run(leaves_much_in_memory, range(6), "processes"))
    assert sorted(found) == [*range(6)] and len(set(found.values())) > 2, "one worker at least was replaced"


def settings(_):
    return os.getpid(), torch.get_num_threads(), os.environ.get("SALIENCY_STORE"), os.environ.get("SALIENCY_QUIET")


def test_processes_are_others_with_one_thread_and_todays_settings_and_folder(monkeypatch, tmp_path):
    for store in ("here", "there"):
        monkeypatch.setenv("SALIENCY_STORE", store)
        for _, (pid, *found) in parallel.run(settings, range(4), "processes"):
            assert pid != os.getpid() and found == [1, store, "1"]
    monkeypatch.delenv("SALIENCY_STORE")
    assert {found[2] for _, found in parallel.run(settings, range(2), "processes")} == {None}
    monkeypatch.chdir(tmp_path)
    assert set(dict(parallel.run(where, range(2), "processes")).values()) == {str(tmp_path)}


def where(_):
    return os.getcwd()


def noted(folder, item):
    """What happens to it is said by the item."""
    what, k = item
    (folder / f"{what}-{k}-{time.time_ns()}").touch()
    time.sleep(0.05)
    if what == "raises":
        raise ValueError(f"not {k}")
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return k


def test_a_task_that_fails_three_times_is_told_and_costs_no_other(tmp_path):
    """Of all that was under way when a process died each is done again alone, so that only the guilty one fails.

    A death in company is no one's failure, so that a task has three tries of its own, and there may be a fourth.
    """
    items, done = [("works", k) for k in range(8)] + [("dies", 8), ("raises", 9)] + [("works", 10)], []
    with pytest.raises(parallel.TasksFailed, match="2 tasks failed 3 times; the first with ") as error:
        done.extend(k for _, k in parallel.run(partial(noted, tmp_path), items, "processes"))
    assert sorted(done) == [*range(8), 10]
    assert dict(error.value.failures).keys() == {("dies", 8), ("raises", 9)}
    reasons = {item: parallel.described(reason) for item, reason in error.value.failures}
    assert reasons[("dies", 8)].startswith("the worker that ran it died each time")
    assert reasons[("raises", 9)] == "ValueError: not 9"
    tries = [len(list(tmp_path.glob(f"{what}-{k}-*"))) for what, k in items]
    assert tries[8] in (3, 4) and tries[9] in (3, 4) and max(tries[:8] + tries[10:]) <= 2
    assert dict(parallel.run(square, [4], "processes")) == {4: 16}


def test_a_pool_that_breaks_while_a_task_is_handed_over_costs_nothing(monkeypatch):
    """The process that dies may do so just before the next item is submitted, which then raises."""
    whole, broken = workers.get_reusable_executor, [BrokenExecutor("died"), None, BrokenExecutor("died"), None]

    def breaks(*arguments, **options):
        if error := broken.pop() if broken else None:
            raise error
        return whole(*arguments, **options)

    monkeypatch.setenv("SALIENCY_PROCESSES", "2")
    monkeypatch.setattr(workers, "get_reusable_executor", breaks)
    assert dict(parallel.run(square, range(5), "processes")) == {k: k * k for k in range(5)}
    assert not broken


@contextmanager
def begun(tmp_path, source):
    (tmp_path / "script.py").write_text(source)
    command, out = [sys.executable, tmp_path / "script.py"], {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **out, text=True, start_new_session=True) as run:
        try:
            yield run
        finally:
            run.kill()


def processes(pid=None):
    found = psutil.Process(pid).children(recursive=True)
    return [p for p in found if "popen_loky_posix" in " ".join(p.cmdline())]


SCRIPT = """
import signal, time, torch
from saliency_lib.runtime import parallel

def own(x):
    time.sleep(x)
    return -x

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
try:
    for _ in parallel.run(own, [0.01] + [60] * 9, "processes"):
        print("begun", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(dict(parallel.run(own, [0.5], "processes")), flush=True)
"""


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    with begun(tmp_path, SCRIPT) as run:
        assert run.stdout.readline() == "begun\n"
        found = processes(run.pid)
        run.kill()
    assert found and not psutil.wait_procs(found, timeout=10)[1]


@pytest.mark.parametrize("moment", ["at the first task", "while processes start"])
def test_after_an_interrupt_nothing_runs_and_the_next_call_works(moment, tmp_path):
    """Ctrl-C reaches the whole group. The script has no main guard, and the task is its own."""
    with begun(tmp_path, SCRIPT) as run:
        if moment == "at the first task":
            assert run.stdout.readline() == "begun\n"
        while len(found := processes(run.pid)) < 2:
            time.sleep(0.1)
        time.sleep(0.5)  # while they are started it is ignored
        os.killpg(run.pid, signal.SIGINT)
        out, _ = run.communicate(timeout=100)
    assert out.splitlines() == ["interrupted", "{0.5: -0.5}"]
    assert not psutil.wait_procs(found, timeout=10)[1]


def test_who_stops_taking_pairs_stops_the_processes(tmp_path):
    tasks = parallel.run(slept, [0.01, *[60] * 8], "processes")
    next(tasks)
    running = processes()
    tasks.close()
    assert running and not psutil.wait_procs(running, timeout=10)[1]
    assert dict(parallel.run(square, [4], "processes")) == {4: 16}


def counted(folder, x):
    (folder / f"{x}-{time.time_ns()}").touch()
    return square(x)


def test_results_that_are_kept_are_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SALIENCY_RESULTS", str(tmp_path / "results"))
    (folder := tmp_path / "calls").mkdir()
    task = partial(counted, folder)
    with pytest.raises(ValueError, match="13"):
        parallel.kept(task, [3, 4, 13])
    assert parallel.kept(task, [4, 5, 3, 5], description="squares") == [16, 25, 9, 25]
    assert sorted(path.name[0] for path in folder.iterdir()) == ["1", "3", "4", "5", "5"]
    with pytest.raises(parallel.TasksFailed):
        parallel.kept(task, [13, 6, 7], "processes")
    assert parallel.kept(task, [6, 7]) == [36, 49] and len(list(folder.glob("[67]-*"))) == 2, "those were kept"


def test_the_serial_executor_is_one_of_concurrent_futures():
    with workers.Inline() as pool:
        future = pool.submit(square, x=3)
        assert wait([future], return_when=FIRST_COMPLETED).done == {future} and future.result() == 9
        with pytest.raises(ValueError, match="13"):
            pool.submit(square, 13)

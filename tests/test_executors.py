"""Tasks in processes give what they give one after the other, see the same settings, and fail loudly."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from saliency_lib import ensembles
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.runtime import executors
from saliency_lib.training import Recipe


def square(x):
    if x == 13:
        raise ValueError("13 is not for squaring")
    return x * x


@pytest.mark.parametrize("name", executors.EXECUTORS)
def test_every_item_comes_back_with_its_result(name):
    assert dict(executors.get(name).map(square, range(9))) == {x: x * x for x in range(9)}
    assert dict(executors.get(name).map(square, [])) == {}
    with pytest.raises((ValueError, executors.TasksFailed), match="13 is not for squaring"):
        list(executors.get(name).map(square, [1, 13, 2]))
    assert dict(executors.get(name).map(square, [3])) == {3: 9}, "still works after a failure"


@pytest.mark.parametrize("name", executors.EXECUTORS)
def test_results_are_merged_within_branches_and_finished_together(name):
    """Of strings, whose sums show in what order they were merged."""
    branches = [[f"{letter}{k}" for k in range(count)] for letter, count in (("a", 1), ("b", 5), ("c", 4))]
    found = executors.get(name).reduce(str.upper, branches, add, tuple)
    assert found == ("A0", "B0B1B2B3B4", "C0C1C2C3")


def add(one, other):
    return one + other


def test_an_unknown_executor_is_named():
    known = r"\['dask', 'processes', 'serial'\], or a Dask scheduler's address such as tcp://host:8786"
    with pytest.raises(ValueError, match=f"unknown executor 'cluster'; one of {known}"):
        executors.get("cluster")


def settings(_):
    return os.getpid(), torch.get_num_threads(), os.environ.get("SALIENCY_STORE"), os.environ.get("SALIENCY_QUIET")


@pytest.mark.parametrize("store", ["here", "there"])
def test_processes_are_others_with_one_thread_and_todays_settings(store, monkeypatch):
    monkeypatch.setenv("SALIENCY_STORE", store)
    for _, (pid, *found) in executors.get("processes").map(settings, range(4)):
        assert pid != os.getpid() and found == [1, store, "1"]


def test_every_executor_trains_the_same_members(tmp_path, monkeypatch):
    spec = EnsembleSpec("digits", "convnet-w4-d2-max", 5, Recipe(epochs=1, together=2), n_train=150, n_val=40)
    before, weights = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    try:
        for name in executors.EXECUTORS:
            monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / name))
            weights[name] = [net.state_dict() for net in ensembles.get(spec, name)]
    finally:
        torch.set_num_threads(before)
    for members in zip(*weights.values(), strict=True):
        one, *others = members
        assert all(torch.equal(one[key], other[key]) for other in others for key in one), "bit for bit"


def test_a_setting_that_is_gone_is_gone_in_processes_too(monkeypatch, tmp_path):
    monkeypatch.setenv("SALIENCY_STORE", "here")
    list(executors.get("processes").map(settings, range(2)))
    monkeypatch.delenv("SALIENCY_STORE")
    assert {found[2] for _, found in executors.get("processes").map(settings, range(2))} == {None}
    monkeypatch.chdir(tmp_path)
    assert set(dict(executors.get("processes").map(where, range(2))).values()) == {str(tmp_path)}


def where(_):
    return os.getcwd()


def dies(x):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_gives_a_sentence_and_the_next_call_works():
    with pytest.raises(RuntimeError, match="a process died: for lack of memory, or since .* what is done is kept"):
        list(executors.get("processes").map(dies, [1]))
    assert dict(executors.get("processes").map(square, [4])) == {4: 16}


def start(tmp_path, source):
    (tmp_path / "script.py").write_text(source)
    return subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def workers(process):
    return [p for p in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]


KILLED = """
import time
from saliency_lib.runtime import executors
if __name__ == "__main__":
    next(executors.get("processes").map(time.sleep, [0.01, 60]))
    print("ready", flush=True)
    time.sleep(60)
"""


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    with start(tmp_path, KILLED) as run:
        assert run.stdout.readline() == "ready\n"
        found = workers(run)
        run.kill()
    assert found and not psutil.wait_procs(found, timeout=10)[1]


INTERRUPTED = """
import signal, time
from saliency_lib.runtime import executors
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    try:
        print("begun", flush=True)
        list(executors.get("processes").map(time.sleep, [{seconds}] * 20))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(dict(executors.get("processes").map(abs, [-3])), flush=True)
"""


@pytest.mark.parametrize("moment,seconds", [(0.3, 0.5), (6.0, 1.0)])
def test_after_an_interrupt_the_next_call_works(moment, seconds, tmp_path):
    """Ctrl-C reaches the whole group, while processes start or at their tasks."""
    with start(tmp_path, INTERRUPTED.format(seconds=seconds)) as run:
        assert run.stdout.readline() == "begun\n"
        time.sleep(moment)
        os.killpg(run.pid, signal.SIGINT)
        out, _ = run.communicate(timeout=60)
    assert out.splitlines() == ["interrupted", "{-3: 3}"]


def test_a_script_without_a_main_guard_gets_a_sentence(tmp_path):
    with start(tmp_path, "from saliency_lib import executors\nlist(executors.get('processes').map(abs, [1]))") as run:
        out, _ = run.communicate(timeout=60)
    assert "RuntimeError: a process died" in out.splitlines()[-1] and "__main__" in out.splitlines()[-1]


@pytest.mark.parametrize("end", ["closed", "failed"])
def test_what_has_not_begun_is_left_and_the_next_call_works(end, tmp_path):
    paths = [tmp_path / str(k) for k in range(400)]
    tasks = executors.get("processes").map(touch, [None, *paths] if end == "failed" else paths)
    if end == "failed":
        with pytest.raises(AttributeError):
            list(tasks)
    else:
        next(tasks)
        tasks.close()
    begun = len(list(tmp_path.iterdir()))  # many where one process still imports, the other works meanwhile
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) <= begun + torch.get_num_threads()
    assert begun < len(paths) / 2
    assert dict(executors.get("processes").map(square, [4])) == {4: 16}


def touch(path):
    time.sleep(0.05)
    path.touch()


def test_a_killed_process_of_an_abandoned_call_does_not_hang_the_next(tmp_path):
    tasks = executors.get("processes").map(pid_after, [0.01, *[1.5] * 8])
    _, pid = next(tasks)
    running = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    tasks.close()
    for process in running:
        process.kill()
    assert dict(executors.get("processes").map(square, [4])) == {4: 16}


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()

"""On a Dask cluster the same numbers come out, and a lost worker, scheduler or member costs no more than itself."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import dask
import nbformat
import pytest
import torch
from conftest import batch, tiny_net, with_own_mounts

from saliency_lib import controls, ensembles, snr
from saliency_lib.ensembles import EnsembleSpec, train
from saliency_lib.runtime import parallel, workers
from saliency_lib.training import Recipe

distributed = pytest.importorskip("distributed")
SPEC = EnsembleSpec("digits", "convnet-w4-d2-max", 4, Recipe(epochs=1, batch_size=64), n_train=150, n_val=40)
DASK = Path(sys.executable).with_name("dask")


@pytest.fixture(scope="module")
def cluster():
    """The address of two worker processes."""
    with distributed.LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as local:
        yield local.scheduler_address


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / "store"))
    return tmp_path / "store" / "ensembles"


def states(ensemble):
    return [net.state_dict() for net in ensemble]


def alike(one, other):
    return all(torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a)


def test_members_are_those_of_serial_bit_for_bit(cluster, one_thread, own_store, monkeypatch):
    spec = dataclasses.replace(SPEC, snapshots=(1,))
    here = states(ensembles.get(spec))
    monkeypatch.setenv("SALIENCY_STORE", str(own_store / "there"))
    there = ensembles.get(spec, cluster)
    assert alike(here, states(there)) and there.path.is_relative_to(own_store / "there")
    assert (there.path / "manifest.json").exists()


def forgotten(cluster, seconds=30):
    """Whether workers hold nothing any more, as soon as the news of what nobody needs has reached them."""
    client, end = workers._client(cluster), time.monotonic() + seconds
    while any(client.has_what().values()):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_merged_statistics_are_those_of_serial(cluster, one_thread, monkeypatch):
    images, targets = batch(12)
    monkeypatch.setattr(snr, "CHUNK_VALUES", 5 * images[0].numel())
    nets = [tiny_net(seed) for seed in range(12)]  # more than the jackknife has groups, so that there is a tree
    method = "input_gradient"
    here, there = (snr.measure(method, nets, images, targets, executor=name) for name in ("serial", cluster))
    for one, other in zip((here.value, *here.without), (there.value, *there.without), strict=True):
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(one.noise, other.noise, rtol=1e-6, atol=0)
    assert here.sizes == there.sizes == (2, 2, *[1] * 8)
    assert forgotten(cluster), "workers forget maps and moments"
    one, other = (controls.measure(method, nets, images, targets, executor=name) for name in ("serial", cluster))
    assert one.power.estimate() == pytest.approx(other.power.estimate(), rel=1e-6)


def fails(folder, item):
    (folder / f"{item}-{time.time_ns()}").touch()
    if item == 2:
        raise ValueError("not 2")
    return item


def test_a_task_that_always_fails_is_tried_three_times_and_the_others_finish(cluster, tmp_path):
    done = []
    with pytest.raises(parallel.TasksFailed, match="1 task failed 3 times; the first with ValueError: not 2") as error:
        for item, _ in parallel.run(partial(fails, tmp_path), range(5), cluster):
            done.append(item)
    assert sorted(done) == [0, 1, 3, 4] and [item for item, _ in error.value.failures] == [2]
    assert len(list(tmp_path.glob("2-*"))) == 3 and len(list(tmp_path.iterdir())) == 7


def fails_at_two(spec, which):
    if 2 in which:
        raise ValueError("not 2")
    return REAL(spec, which)


REAL = train.train_members


def test_a_member_that_always_fails_is_named_with_its_seeds(cluster, own_store, monkeypatch):
    monkeypatch.setattr(train, "train_members", fails_at_two)
    seeds = ", ".join(map(str, SPEC.seeds(2)))
    message = rf"3 tries each were not enough for member 2 \(seeds {seeds}\): ValueError: not 2. The others are trained"
    with pytest.raises(RuntimeError, match=message):
        ensembles.get(SPEC, cluster)
    assert len(list((own_store / SPEC.key).glob("member-*"))) == 3, "the others are there"
    monkeypatch.undo()
    monkeypatch.setenv("SALIENCY_STORE", str(own_store.parent))
    assert len(ensembles.get(SPEC)) == 4


def deadly(item):
    if item == 4:
        os._exit(1)
    return item


@pytest.fixture
def mortal():
    """The address of two workers of a scheduler that lets no task try again; whoever dies is replaced, late or not."""
    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.deploy.lost-worker-timeout": "1 day"}
    own = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with dask.config.set(settings), distributed.LocalCluster(2, silence_logs="CRITICAL", **own) as local:
        yield local.scheduler_address


def test_a_task_that_always_kills_its_worker_is_told_and_takes_no_other_with_it(mortal):
    tasks, done = parallel.run(deadly, range(10), mortal), []
    with pytest.raises(parallel.TasksFailed, match="1 task failed 3 times; the first with the worker that ran it"):
        done.extend(item for item, _ in tasks)
    assert sorted(done) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


class Fatal:
    """A task that kills the worker which receives it, the first time."""

    def __init__(self, here, once):
        if os.getpid() != here and not once.exists():
            once.touch()
            os._exit(1)
        self.state = here, once

    def __call__(self, item):
        return str(item)

    def __reduce__(self):
        return Fatal, self.state


def test_a_worker_that_dies_as_it_receives_the_task_costs_one_try(mortal, tmp_path):
    done = sorted(parallel.run(Fatal(os.getpid(), tmp_path / "once"), range(4), mortal))
    assert done == [(k, str(k)) for k in range(4)] and (tmp_path / "once").exists()


def kills_once(folder, item):
    """Kills its worker at item 3, the first time."""
    time.sleep(0.3)
    (folder / f"{item}-{time.time_ns()}").touch()
    if item == 3 and len(list(folder.glob("3-*"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_killed_worker_costs_only_the_task_that_it_was_at(cluster, tmp_path):
    assert sorted(item for item, _ in parallel.run(partial(kills_once, tmp_path), range(8), cluster)) == [*range(8)]
    begun = Counter(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert begun.keys() == set("01234567") and begun["3"] == 2
    assert begun.total() <= 11, "all others once, but for what it had done and not handed over yet"


def test_members_survive_a_killed_worker(cluster, own_store):
    spec = dataclasses.replace(SPEC, n_members=6, model="convnet-w16-d2-max", n_train=None)
    spec = dataclasses.replace(spec, recipe=Recipe(epochs=6, batch_size=64))
    script = f"""
import json, os, signal, time
from pathlib import Path
from distributed import Client
client, folder = Client({cluster!r}), Path({str(own_store / spec.key)!r})
print("ready", flush=True)
while not list(folder.glob("member-*")):
    time.sleep(0.01)
kept = {{path.name: path.stat().st_mtime_ns for path in folder.glob("member-*")}}
time.sleep(0.1)
os.kill(client.run(os.getpid).popitem()[1], signal.SIGKILL)
print(json.dumps(kept))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as killer:
        try:
            assert killer.stdout.readline() == "ready\n"
            ensemble = ensembles.get(spec, cluster)
            kept = json.loads(killer.communicate(timeout=60)[0])
        finally:
            killer.kill()
    assert 0 < len(kept) < 6 and len(ensemble) == 6
    assert all((ensemble.path / name).stat().st_mtime_ns == stamp for name, stamp in kept.items()), "not trained again"


@pytest.fixture
def scheduler():
    """One that a command starts: its address, the command of a worker, what starts that, and its own process."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port, processes = one.getsockname()[1], []
    address, tests = f"tcp://127.0.0.1:{port}", Path(__file__).parent

    def start(*command, **environment):
        paths = {"PYTHONPATH": f"{tests}:{tests.parent}"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes.append(subprocess.Popen(command, env=os.environ | paths | environment, **quiet))
        return processes[-1]

    first = start(DASK, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    yield address, [DASK, "worker", address, "--nthreads", "1", "--no-dashboard"], start, first
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(timeout=60)


def worker_name(_):
    return distributed.get_worker().name


def test_tasks_on_a_gpu_go_where_one_is_and_a_lost_scheduler_is_told(scheduler, cluster, tmp_path):
    address, worker, start, first = scheduler
    start(*worker, "--local-directory", tmp_path)
    start(*worker, "--local-directory", tmp_path, "--resources", "GPU=1", "--name", "gpu")
    with distributed.Client(address, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
    names = parallel.run(worker_name, range(6), address, "cuda")
    assert {name for _, name in names} == {"gpu"}
    with pytest.raises(ValueError, match="on 'cuda', but no Dask worker offers a GPU; start one .* --resources GPU=1"):
        next(parallel.run(worker_name, range(6), cluster, "cuda"))
    tasks = parallel.run(partial(kills_once, tmp_path), range(4, 20), address)
    next(tasks)
    first.kill()
    with pytest.raises(ConnectionError, match=f"the Dask scheduler at {address} is gone; what is done is kept"):
        list(tasks)


def members_in(folder):
    return [path.name for path in folder.rglob("member-*")]


HIDDEN = 'mount -t tmpfs none "$1" && cd "$2" && shift 2 && exec "$@"'


def test_a_worker_that_shares_no_folder_trains_and_measures(scheduler, one_thread, own_store, tmp_path, monkeypatch):
    """The store is hidden from the worker, which begins in an empty folder."""
    alone = with_own_mounts()
    address, worker, start, _ = scheduler
    (elsewhere := tmp_path / "elsewhere").mkdir()
    own_store.parent.mkdir()
    places = {"HOME": str(elsewhere), "SALIENCY_STORE": str(elsewhere)}
    start(*alone, HIDDEN, "sh", own_store.parent, elsewhere, *worker, "--local-directory", elsewhere, **places)
    there = ensembles.get(SPEC, address)
    assert there.path.is_relative_to(own_store) and len(members_in(own_store)) == 4
    _, val = ensembles.splits(SPEC)
    measured = [
        snr.measure("input_gradient", there, val.inputs()[:6], val.labels[:6], executor=name)
        for name in ("serial", address)
    ]
    assert measured[0].debiased() == pytest.approx(measured[1].debiased(), rel=1e-6)
    assert list(parallel.ordered(members_in, [own_store, elsewhere], address)) == [[], []], "as the worker sees them"
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / "here"))
    assert alike(states(ensembles.get(SPEC)), states(there))


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    with pytest.raises(ConnectionError, match="no Dask scheduler answers at tcp://127.0.0.1:9; start one with"):
        next(parallel.run(worker_name, [1], "tcp://127.0.0.1:9"))


def test_serial_needs_no_dask():
    code = """
import sys
sys.modules |= {"dask": None, "distributed": None}  # an import of them fails
from saliency_lib import ensembles, snr
from saliency_lib.training import Recipe
spec = ensembles.EnsembleSpec("digits", "convnet-w2-d1-max", 2, Recipe(epochs=1), n_train=60, n_val=40)
_, val = ensembles.splits(spec)
print(len(snr.measure("input_gradient", ensembles.get(spec), val.inputs()[:8], val.labels[:8]).value.mean))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "8\n"


def test_without_dask_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs Dask, .* 'pip install \"\.\[cluster\]\"'"):
        next(parallel.run(worker_name, [1], "dask"))


WATCHED = """
import os
os.environ.pop("SALIENCY_QUIET", None)
from saliency_lib.runtime import parallel

def own(x):
    return -x

print(sorted(dict(parallel.run(own, range(-3, 0), ADDRESS)).values()))
"""


@pytest.mark.notebook
def test_a_notebook_that_somebody_watches_runs_its_own_functions_and_shows_the_dashboard(tmp_path):
    with distributed.LocalCluster(1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as local:
        cell = nbformat.v4.new_code_cell(WATCHED.replace("ADDRESS", repr(local.scheduler_address)))
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "book.ipynb")
        command = [sys.executable, "-W", "ignore", "-m", "nbconvert", "--execute", "--to", "notebook", "--inplace"]
        subprocess.run([*command, tmp_path / "book.ipynb"], check=True, capture_output=True, timeout=120)
        outputs = nbformat.read(tmp_path / "book.ipynb", 4).cells[0].outputs
        shown = [o.data.get("text/html", "") for o in outputs if o.output_type == "display_data"]
        assert any(f'href="{local.dashboard_link}"' in html for html in shown)
        assert [o.text for o in outputs if o.output_type == "stream"] == ["[1, 2, 3]\n"]

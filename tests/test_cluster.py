"""On a Dask cluster the same numbers come out, and a lost worker, scheduler or member costs no more than itself."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import dask
import fsspec
import nbformat
import pytest
import torch
from conftest import batch, tiny_net

from saliency_lib import controls, ensembles, snr
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.runtime import executors
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
    client, end = executors.cluster.client(cluster), time.monotonic() + seconds
    while any(client.has_what().values()):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_merged_statistics_are_those_of_serial(cluster, one_thread):
    images, targets = batch(12)
    nets = [tiny_net(seed) for seed in range(12)]  # more than the jackknife has groups, so that there is a tree
    method = "input_gradient"
    here, there = (snr.measure(method, nets, images, targets, chunk=5, executor=name) for name in ("serial", cluster))
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
    with pytest.raises(executors.TasksFailed, match="1 task failed 3 times; the first with ValueError: not 2") as error:
        for item, _ in executors.get(cluster).map(partial(fails, tmp_path), range(5)):
            done.append(item)
    assert sorted(done) == [0, 1, 3, 4] and [item for item, _ in error.value.failures] == [2]
    assert len(list(tmp_path.glob("2-*"))) == 3 and len(list(tmp_path.iterdir())) == 7
    with pytest.raises(executors.TasksFailed, match="ValueError: not 2"):
        executors.get(cluster).reduce(partial(fails, tmp_path), [[0, 1], [2, 3]], max, list)


def test_a_member_that_always_fails_is_named_with_its_seeds(cluster, own_store):
    blocked = own_store / SPEC.key / "member-002.safetensors"
    blocked.mkdir(parents=True)
    seeds = ", ".join(map(str, SPEC.seeds(2)))
    message = rf"3 tries each were not enough for member 2 \(seeds {seeds}\): .*Error: .*cannot write"
    with pytest.warns(UserWarning, match="training it again"), pytest.raises(RuntimeError, match=message):
        ensembles.get(SPEC, cluster)
    assert len([path for path in blocked.parent.glob("member-*") if path.is_file()]) == 3, "the others are there"
    blocked.rmdir()
    assert len(ensembles.get(SPEC)) == 4


def deadly(item):
    if item == 4:
        os._exit(1)
    return item


def test_a_task_that_always_kills_its_worker_is_told_and_takes_no_other_with_it():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs="CRITICAL"
        ) as local,
    ):
        tasks, done = executors.get(local.scheduler_address).map(deadly, list(range(10))), []
        with pytest.raises(executors.TasksFailed, match="1 task failed 3 times; the first with the worker that ran it"):
            done.extend(item for item, _ in tasks)
        assert sorted(done) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def sleepy(folder, item):
    """As members are trained: what is done is not done again, also when a worker dies with the result."""
    if (folder / f"done-{item}").exists():
        return item
    (folder / f"begun-{item}-{os.getpid()}").touch()
    time.sleep(0.3)
    (folder / f"done-{item}").touch()
    return item


def test_a_killed_worker_costs_only_the_task_that_it_was_at(cluster, tmp_path):
    tasks = executors.get(cluster).map(partial(sleepy, tmp_path), range(8))
    next(tasks)
    deadline, victim = time.monotonic() + 60, None
    while victim is None and time.monotonic() < deadline:  # a worker that has just begun a task, which takes 0.3 s
        fresh = [p for p in tmp_path.glob("begun-*") if time.time() - p.stat().st_mtime < 0.1]
        victim = fresh[0] if fresh else None
    os.kill(int(victim.name.split("-")[2]), signal.SIGKILL)
    assert len(list(tasks)) == 7
    begun = [int(path.name.split("-")[1]) for path in tmp_path.glob("begun-*")]
    assert sorted(begun) == sorted([*range(8), int(victim.name.split("-")[1])]), "that task twice, all others once"


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
def machines(tmp_path):
    """A scheduler and two workers, one of which offers a GPU, as commands start them: (address, processes)."""
    port = 20000 + os.getpid() % 20000
    address, quiet = f"tcp://127.0.0.1:{port}", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    base = [DASK, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = [DASK, "worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    commands = [base, worker, [*worker, "--resources", "GPU=1", "--name", "gpu"]]
    processes = [subprocess.Popen(command, env=environment, **quiet) for command in commands]
    yield address, processes
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(timeout=30)


def worker_name(_):
    return distributed.get_worker().name


def test_tasks_on_a_gpu_go_where_one_is_and_a_lost_scheduler_is_told(machines, cluster, tmp_path):
    address, processes = machines
    with distributed.Client(address, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
    names = executors.get(address).map(worker_name, range(6), "cuda")
    assert {name for _, name in names} == {"gpu"}
    with pytest.raises(ValueError, match="on 'cuda', but no Dask worker offers a GPU; start one .* --resources GPU=1"):
        next(executors.get(cluster).map(worker_name, range(6), "cuda"))
    tasks = executors.get(address).map(partial(sleepy, tmp_path), range(20))
    next(tasks)
    processes[0].kill()
    with pytest.raises(ConnectionError, match=f"the Dask scheduler at {address} is gone; what is done is kept"):
        list(tasks)
    assert list(tmp_path.glob("done-*"))


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(executors.cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(ConnectionError, match="no Dask scheduler answers at tcp://127.0.0.1:9; start one with"):
        next(executors.get("tcp://127.0.0.1:9").map(worker_name, [1]))


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
        next(executors.get("dask").map(worker_name, [1]))


@pytest.mark.parametrize("url", ["memory://members", "file://{}/common", "{}/common"])
def test_members_are_shared_through_a_store(url, tmp_path, monkeypatch):
    """Two machines without a folder in common: what one has trained, and a broken copy, which is made again."""
    monkeypatch.setenv("SALIENCY_MEMBERS", url.format(tmp_path))
    spec = dataclasses.replace(SPEC, n_members=2, snapshots=(1,), seed=len(url))
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / "one"))
    one = states(ensembles.get(spec))
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / "other"))
    monkeypatch.setattr(ensembles.getting, "train_members", lambda *a: pytest.fail("trained twice"))
    other = ensembles.get(spec)
    assert alike(one, states(other)) and other.path.is_relative_to(tmp_path / "other")
    assert alike(one, [other.snapshot(k, 1).state_dict() for k in range(2)]), "the last epoch is the first"
    ensembles.member_path(other.path, 1).unlink()
    assert alike(one[1:], [other[1].state_dict()]), "fetched when it is asked for"
    system, root = fsspec.url_to_fs(url.format(tmp_path))
    assert not [path for path in system.find(root) if path.endswith(".tmp")]
    monkeypatch.undo()
    monkeypatch.setenv("SALIENCY_MEMBERS", url.format(tmp_path))
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / "third"))
    with system.open(f"{root}/{spec.key}/member-000.safetensors", "wb") as file:
        file.write(b"half")
    with pytest.warns(UserWarning, match="member-000.safetensors cannot be read .*; training it again"):
        assert alike(one, states(ensembles.get(spec)))
    with system.open(f"{root}/{spec.key}/member-000.safetensors", "rb") as file:
        assert len(file.read()) > 1000, "and put back whole"


WATCHED = """
import os
os.environ.pop("SALIENCY_QUIET", None)
from saliency_lib.runtime import executors
print(sorted(dict(executors.get(ADDRESS).map(abs, range(-3, 0))).values()))
"""


@pytest.mark.notebook
def test_a_notebook_that_somebody_watches_shows_dasks_progress_and_dashboard(tmp_path):
    with distributed.LocalCluster(1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as local:
        cell = nbformat.v4.new_code_cell(WATCHED.replace("ADDRESS", repr(local.scheduler_address)))
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "book.ipynb")
        command = [sys.executable, "-W", "ignore", "-m", "nbconvert", "--execute", "--to", "notebook", "--inplace"]
        subprocess.run([*command, tmp_path / "book.ipynb"], check=True, capture_output=True, timeout=120)
        outputs = nbformat.read(tmp_path / "book.ipynb", 4).cells[0].outputs
        shown = [o.data.get("text/html", "") for o in outputs if o.output_type == "display_data"]
        assert any(f'href="{local.dashboard_link}"' in html for html in shown)
        assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs), "the bars"
        assert [o.text for o in outputs if o.output_type == "stream"] == ["[1, 2, 3]\n"]


def test_members_are_shared_through_s3(tmp_path, monkeypatch):
    """A server of its own; ``pip install moto[server] s3fs`` for this test."""
    pytest.importorskip("s3fs", reason="needs s3fs")
    server = pytest.importorskip("moto.server", reason="needs moto[server]").ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "ENDPOINT_URL": f"http://{host}:{port}",
            "ACCESS_KEY_ID": "a",
            "SECRET_ACCESS_KEY": "b",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        fsspec.filesystem("s3").mkdir("bucket")
        monkeypatch.setenv("SALIENCY_MEMBERS", "s3://bucket/members")
        monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / "one"))
        one = states(ensembles.get(SPEC))
        monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / "other"))
        monkeypatch.setattr(ensembles.getting, "train_members", lambda *a: pytest.fail("trained twice"))
        assert alike(one, states(ensembles.get(SPEC)))
    finally:
        server.stop()

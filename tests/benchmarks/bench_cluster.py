"""What Dask costs: 8 tiny members on 2 workers against one after the other, with one thread each, in the same run."""

import shutil
import statistics
import time

import distributed
import torch

from saliency_lib import ensembles
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.training import Recipe

SPEC = EnsembleSpec("digits", "convnet-w16-d2-max", 8, Recipe(epochs=3, batch_size=64))
PAIRS = 5


def test_overhead_of_a_cluster(tmp_path, monkeypatch, capsys):
    before, times = torch.get_num_threads(), {"serial": [], "dask": []}
    torch.set_num_threads(1)
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path))
    try:
        started = time.perf_counter()
        with distributed.LocalCluster(
            2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster:
            begin = time.perf_counter() - started
            for _ in range(PAIRS + 1):  # the first brings data and libraries to the workers
                for way, executor in (("serial", "serial"), ("dask", cluster.scheduler_address)):
                    shutil.rmtree(tmp_path / "ensembles", ignore_errors=True)
                    started = time.perf_counter()
                    seconds = ensembles.get(SPEC, executor).seconds
                    times[way].append((time.perf_counter() - started, seconds))
    finally:
        torch.set_num_threads(before)
    ratios = [s / d for (s, _), (d, _) in zip(*times.values())][1:]
    # workers are busy for what training took; the rest of their time is Dask's, loading and writing
    idle = [1 - seconds / (2 * wall) for wall, seconds in times["dask"]][1:]
    serial, dask = (statistics.median(wall for wall, _ in found[1:]) for found in times.values())
    faster = f"{statistics.median(ratios):.2f} times as fast [{min(ratios):.2f}, {max(ratios):.2f}]"
    with capsys.disabled():
        print(
            f"\n8 tiny members: serial {serial:.2f} s, 2 Dask workers {dask:.2f} s, {faster}; "
            f"workers idle {statistics.median(idle):.0%} of the time; "
            f"start of the cluster {begin:.1f} s, first call {times['dask'][0][0]:.1f} s"
        )

"""What Dask costs: 8 tiny members on 2 workers against one after the other, with one thread each, in the same run."""

import shutil

import distributed
import torch
from timing import compare, report, sized

from saliency_lib import ensembles
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.training import Recipe

SPEC = EnsembleSpec("digits", "convnet-w16-d2-max", sized(8, 2), Recipe(epochs=sized(3, 1), batch_size=64))


def test_overhead_of_a_cluster(tmp_path, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path))

    def trained(executor):
        shutil.rmtree(tmp_path / "ensembles", ignore_errors=True)
        ensembles.get(SPEC, executor)

    try:
        with distributed.LocalCluster(
            2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster:  # the first round brings data and libraries to the workers
            found = compare(lambda: trained(cluster.scheduler_address), lambda: trained("serial"))
    finally:
        torch.set_num_threads(before)
    report("8 tiny members on 2 Dask workers", "one after the other", found)

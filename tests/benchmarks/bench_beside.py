"""Training beside other work: what one busy core costs, where every process has one thread."""

import subprocess
import sys
from functools import partial

from timing import compare, report, sized

from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.ensembles.train import train_members
from saliency_lib.runtime import parallel
from saliency_lib.training import Recipe

SPEC = EnsembleSpec("photodigits", "resnet_small", sized(8, 2), Recipe(epochs=1, batch_size=64), n_train=sized(500, 64))


def members():
    for _ in parallel.run(partial(train_members, SPEC), [(k,) for k in range(SPEC.n_members)], "processes"):
        pass


def beside():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        members()
    finally:
        busy.kill()
        busy.wait()


def test_one_core_kept_busy():
    report(f"{SPEC.n_members} members in processes, one core kept busy", "on an idle machine", compare(beside, members))

"""What all tests share: nothing of theirs lands in the checkout; real data is used only where a test asks for it."""

import os
import shutil
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # no timed assertions: CI machines pause
settings.load_profile("unhurried")
ALL = bool(os.environ.get("SALIENCY_ALL_TESTS"))  # ./run_all.sh test --all
if "SALIENCY_DATA" in os.environ:  # under a name that workers of pytest-xdist inherit and the library does not know
    os.environ["REAL_DATA"] = os.environ.pop("SALIENCY_DATA")
REAL_DATA = os.environ.get("REAL_DATA")
os.environ["SALIENCY_PRECISION"] = "float32"  # the same on every machine

NETS = [("resnet18", None), ("resnet18", "none"), ("vgg11", "none"), ("vgg11", "batch"), ("resnet_small", None)]

# Tests that look at the notebooks' smoke run, which is made once: for one process, and first.
SMOKE = (
    "tests/test_notebooks.py::test_all_run_at_smoke",
    "tests/test_notebooks.py::test_other_networks",
    "tests/test_site.py::test_the_student_edition",
    "tests/test_site.py::test_the_site_has_no_broken_link",
    "tests/browser/test_columns.py",
    "tests/test_faults.py::test_a_site_that_is_killed",
    "tests/test_ways_in.py::test_a_folder_for_a_course",
)


def pytest_configure(config):
    """Tests are the same on every machine; benchmarks take its GPU."""
    if "bench_*.py" not in config.getini("python_files"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(optionalhook=True)  # there may be no pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """Every test on its own to whichever process is free, but for those of ``SMOKE``, which stay together."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "smoke" if str(nodeid).startswith(SMOKE) else str(nodeid)

    return Scheduler(config, log)


def pytest_collection_modifyitems(items):
    for item in items:
        assert ("smoke" in item.fixturenames) == item.nodeid.startswith(SMOKE), f"{item.nodeid}: SMOKE is not complete"


def pytest_terminal_summary(terminalreporter, exitstatus):
    """Of a run of the benchmarks, their table, also as a page where ``SALIENCY_SPEED`` says."""
    timing = sys.modules.get("timing")
    if timing and timing.ROWS:
        terminalreporter.write_line("\n" + timing.table())
        if (path := os.environ.get("SALIENCY_SPEED")) and exitstatus == 0:
            Path(path).write_text(timing.page())


@pytest.fixture(scope="session", autouse=True)
def store(tmp_path_factory):
    """A store of trained networks and caches of the session's own."""
    folder = tmp_path_factory.mktemp("store")
    os.environ["SALIENCY_STORE"] = str(folder)
    os.environ["SALIENCY_QUIET"] = "1"
    return folder


@pytest.fixture(scope="session")
def smoke(store, tmp_path_factory):
    """Every notebook executed at its smallest size, once for all tests: (folder of figures and build, results)."""
    from saliency_lib.book import pipeline

    folder, patch = tmp_path_factory.mktemp("smoke"), pytest.MonkeyPatch()
    patch.setenv("SALIENCY_FIGURES", str(folder))
    with mock.patch.dict(os.environ):
        results = pipeline.run(pipeline.settings("smoke", pipeline.select(None), {}), folder / "build", jobs=2)
    yield folder, results
    patch.undo()


@pytest.fixture(scope="session")
def smoke_site(smoke, tmp_path_factory):
    """The folder of the site of ``smoke``."""
    from saliency_lib.book import site

    return site.build("smoke", executed=smoke[0] / "build" / "smoke", out=tmp_path_factory.mktemp("site") / "site")


@pytest.fixture
def real_data(monkeypatch):
    """The folder of the papers' data sets, or skip."""
    if not REAL_DATA or not Path(REAL_DATA).is_dir():
        pytest.skip("SALIENCY_DATA does not point at real data sets")
    monkeypatch.setenv("SALIENCY_DATA", REAL_DATA)
    return Path(REAL_DATA)


@pytest.fixture(autouse=True)
def global_state_untouched():
    """No test, so nothing of the library, may leave PyTorch's global generator or defaults changed.

    Commands set the environment for the rest of their process: it is put back.
    """
    before, kind, environment = torch.random.get_rng_state(), torch.get_default_dtype(), dict(os.environ)
    yield
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    after = torch.random.get_rng_state()
    torch.random.set_rng_state(before)
    assert torch.equal(before, after), "the global random state moved"
    assert torch.get_default_dtype() == kind


@pytest.fixture
def chance(global_state_untouched):
    """PyTorch's global generator, seeded for the test."""
    from saliency_lib.runtime.seeds import seeded

    with seeded(0):
        yield


def narrow_vgg11(num_classes: int):
    """torchvision's vgg11_bn, layer for layer, with an eighth of its channels and a 64th of its hidden units."""
    from torchvision.models import vgg

    with torch.device("meta"):  # the wide one takes seconds to draw
        net = vgg.vgg11_bn(num_classes=num_classes)
    net.features = vgg.make_layers([c if c == "M" else c // 8 for c in vgg.cfgs["A"]], batch_norm=True)
    sizes = iter([(64 * 49, 64), (64, 64), (64, num_classes)])
    layers = [torch.nn.Linear(*next(sizes)) if isinstance(m, torch.nn.Linear) else m for m in net.classifier]
    net.classifier = torch.nn.Sequential(*layers)
    return net


def tiny_net(seed: int = 0, **options):
    """A small trained-looking network in eval mode: the tests' stand-in for a member."""
    import torchvision

    from saliency_lib import models
    from saliency_lib.runtime.seeds import seeded

    with seeded(seed), mock.patch.object(torchvision.models, "vgg11_bn", narrow_vgg11):
        return models.build(options.pop("name", "resnet_small"), 10, size=options.pop("size", 16), **options).eval()


def batch(n: int = 5, size: int = 16, seed: int = 0):
    """Smooth random images (n, 3, size, size) and targets (n,)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 5, 5, generator=generator)
    images = 2 * torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return images + 0.2 * torch.randn(images.shape, generator=generator), torch.randint(10, (n,), generator=generator)


def noise(*shape: int, seed: int = 0):
    """Random numbers, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_own_mounts() -> list[str]:
    """A command for a shell script that may mount disks that nobody else sees, or skip."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = "mount -t tmpfs none /tmp"
    if not shutil.which("unshare") or subprocess.run([*command, mount], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a disk of their own")
    return command


@contextmanager
def as_it_comes():
    """For other libraries' methods: they warn and draw from the global generators."""
    state = np.random.get_state()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        yield
    np.random.set_state(state)

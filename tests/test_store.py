"""What is kept in the store is found again as long as the same call would be made by the same code, and no longer."""

import importlib
import inspect
import itertools
import linecache
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_net

from saliency_lib import attribution, similarity, snr
from saliency_lib.audit.networks import two_sided
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.estimates import Estimate
from saliency_lib.runtime import code, store
from saliency_lib.runtime.store import Entry, kept

SOURCE = '''
from numpy import sqrt

FACTOR = 2.0
METHODS = {}


def used(x):
    """Used below."""
    return FACTOR * x


def unused(x):
    return x + 1


def registered(x):
    return x + 3


METHODS |= {"one": used, "other": registered}


class Maker:
    def make(self, x):
        return used(x)


def task(x, executor="serial"):
    """What is kept."""
    calls.append(x)
    return Maker().make(x)


def by_name(x, name="one"):
    return METHODS[name](x)


calls = []
'''
NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """``module(old, new)`` is a module of ``SOURCE`` where the one text stands for the other."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def written(old="", new=""):
        assert old in SOURCE
        name = f"things_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(SOURCE.replace(old, new, 1) if old else SOURCE)
        importlib.invalidate_caches()
        made = importlib.import_module(name)
        for thing in (made.used, made.unused, made.registered, made.Maker, made.Maker.make, made.task, made.by_name):
            thing.__module__ = "things"
        monkeypatch.setitem(sys.modules, "things", made)
        return made

    return written


@pytest.mark.parametrize(
    "old,new,same",
    [
        ('"""Used below."""', '"""Used further down."""', True),
        ('    """What is kept."""\n', "    # what is kept\n", True),
        ("return x + 1", "return x + 2", True),
        ("return x + 3", "return x + 4", True),
        ("calls = []", "calls = [5]", True),
        ("return FACTOR * x", "return FACTOR * x * x", False),
        ("FACTOR = 2.0", "FACTOR = 3.0", False),
        ("return used(x)", "return used(x) + 0", False),
        ("calls.append(x)", "calls.append(x + 0)", False),
    ],
)
def test_a_value_is_kept_until_code_that_makes_it_changes(module, old, new, same):
    one = module()
    assert kept(one.task, 1.0) == kept(one.task, 1.0) == 2.0 and one.calls == [1.0]
    other = module(old, new)
    known = list(other.calls)
    kept(other.task, 1.0)
    assert (other.calls == known) == same


@pytest.mark.parametrize("name,same", [("one", True), ("other", False)])
def test_of_functions_in_a_dictionary_those_count_that_are_named(module, name, same):
    before = Entry(module().by_name, 1.0, name=name).path
    assert (Entry(module("return x + 3", "return x + 4").by_name, 1.0, name=name).path == before) == same


def test_one_method_is_not_all_methods(monkeypatch):
    nets, x, y = [tiny_net(0), tiny_net(1)], torch.zeros(2, 3, 16, 16), torch.arange(2)
    rows = [partial(attribution.METHODS[name].function) for name in ("lime", "smoothgrad")]
    before = [Entry(snr.measure, row, nets, x, y).path for row in rows]
    whole = code.tree
    monkeypatch.setattr(code, "tree", lambda source: whole(source) + " and more" * ("def lime(" in source))
    code._read.cache_clear()
    after = [Entry(snr.measure, row, nets, x, y).path for row in rows]
    code._read.cache_clear()
    assert [a == b for a, b in zip(before, after)] == [False, True]


def closing(k):
    return lambda x: x + k


VALUES = {
    "numbers": (1, 2, 1.0, True, None, float("nan")),
    "text": ("a", "b", b"a"),
    "tensors": (torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, dtype=torch.float64), torch.ones(2), np.zeros(2)),
    "containers": ([1, [2, 3]], [[1, 2], 3], (1, 2, 3), {"a": 1}, {"b": 1}, [], {}, Estimate(1, 2, 3)),
    "networks": (tiny_net(0), tiny_net(1), tiny_net(0).double()),
    "functions": (torch.relu, used := (lambda x: x), partial(used, 1), partial(used, 2), partial(used, x=1)),
    "closures": [closing(k) for k in range(2)],
    "ensembles": [
        EnsembleSpec("digits", "mlp", 2),
        EnsembleSpec("digits", "mlp", 3),
        EnsembleSpec("digits", "mlp", 2, seed=1),
    ],
}


@pytest.mark.parametrize("kind", VALUES)
def test_arguments_are_told_apart_by_value(kind):
    paths = [Entry(Entry.load, value).path for value in VALUES[kind]]
    assert len(set(paths)) == len(paths)
    assert paths == [Entry(Entry.load, value).path for value in VALUES[kind]]


def test_where_work_is_done_is_no_argument_and_what_cannot_be_told_is_refused():
    assert Entry(kept, 1, executor="serial").path == Entry(kept, 1, executor="dask").path
    assert Entry(kept, 1, a=1, b=2).path != Entry(kept, 1, b=1, a=2).path
    with pytest.raises(ValueError, match="a object cannot tell results apart"):
        Entry(kept, object())


NOTEBOOK = """
data, table, level = torch.zeros(3), {"a": torch.zeros(3)}, 3

def closing(k):
    return lambda x: x + k

closed, filled = closing(data), partial(torch.add, data)

def task(x):
    return torch.add(x, level).to(torch.float64)
"""


@pytest.fixture
def notebook():
    """Variables of a notebook, as ``run --no-kernel`` has them."""
    variables = {"__name__": "__main__", "torch": torch, "partial": partial}

    def cell(source):
        name = f"<cell {next(NUMBERS)}>"
        linecache.cache[name] = len(source), None, source.splitlines(True), name
        exec(compile(source, name, "exec"), variables)

    cell(NOTEBOOK)
    return variables, cell


def test_a_notebooks_functions_go_by_their_code_and_the_numbers_that_they_use(notebook):
    variables, cell = notebook
    assert kept(variables["task"], torch.ones(1)) == 4
    variables["level"] = 4
    assert kept(variables["task"], torch.ones(1)) == 5
    cell("def task(x):\n    return x * level")
    assert kept(variables["task"], torch.ones(1)) == 4


@pytest.mark.parametrize("name", ["data", "table", "closed", "filled"])
def test_a_notebooks_function_must_be_given_its_data(notebook, name):
    variables, cell = notebook
    cell(f"def task(x):\n    return x, {name}")
    with pytest.raises(ValueError, match=f"task uses the notebook's '{name}'; make it one of its arguments"):
        kept(variables["task"], 1)


def test_a_broken_file_is_made_again_and_a_folder_of_somebody_else_costs_only_time(module, own_store, monkeypatch):
    things = module()
    kept(things.task, 1.0)
    (path,) = own_store.rglob("task-*.pickle")
    path.write_bytes(path.read_bytes()[:-1])
    assert kept(things.task, 1.0) == 2.0 and things.calls == [1.0, 1.0]
    assert kept(things.task, 1.0) == 2.0 and len(things.calls) == 2
    monkeypatch.setenv("SALIENCY_STORE", "/dev/null")
    assert kept(things.task, 1.0) == 2.0 and len(things.calls) == 3


def test_what_a_run_that_stops_has_finished_is_there(module):
    things = module()

    def stop(x):
        raise KeyboardInterrupt

    kept(things.task, 1.0)
    with pytest.raises(KeyboardInterrupt):
        kept(stop, 2.0)
    assert Entry(things.task, 1.0).load() == 2.0
    with pytest.raises(LookupError):
        Entry(things.task, 2.0).load()
    assert not list(store.results_root().glob("*.tmp"))


def test_a_set_of_words_counts_the_same_in_every_process():
    told = "from saliency_lib.data import folders; from saliency_lib.runtime import code; "
    told += "print(code.of(folders.images_in))"
    found = {
        subprocess.run(
            [sys.executable, "-c", told],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


class Holder:
    """With a key, so that it can be told from others."""

    def __init__(self, key):
        self.key = key

    def method(self, x):
        return x


def with_default(k):
    def function(x, *, k=k):
        return x + k

    return function


class Scaled(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.register_buffer("hidden", torch.tensor(float(factor)), persistent=False)


def test_what_decides_but_is_no_argument_counts():
    paths = [Entry(function, 1).path for function in (Holder("a").method, Holder("b").method)]
    paths += [Entry(with_default(k), 1).path for k in range(2)]
    paths += [Entry(kept, Scaled(k)).path for k in range(2)]
    assert len(set(paths)) == 6
    with_hook = tiny_net(0)
    with_hook.layer1.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="a network with hooks"):
        Entry(kept, with_hook)


def test_numbers_of_numpy_and_halves_are_told_apart():
    assert Entry(kept, np.int64(3)).path == Entry(kept, 3).path != Entry(kept, np.float32(2.5)).path
    half = torch.ones(2, dtype=torch.bfloat16)
    assert len({Entry(kept, value).path for value in (half, 2 * half, half.half(), half.float())}) == 4


def test_functions_in_dataclasses_are_part_of_what_uses_them():
    parts = {}
    for name in ("_ssim", "_ranks", "_histograms", "pearson"):
        before = code.of(similarity.compare)
        code._read.cache_clear()
        tree = code.tree
        code.tree = lambda source, name=name, tree=tree: tree(source) + (name if f"def {name}(" in source else "")
        try:
            parts[name] = code.of(similarity.compare) != before
        finally:
            code.tree = tree
            code._read.cache_clear()
    assert all(parts.values()), parts


def test_half_written_results_of_killed_runs_go(own_store):
    entry = Entry(used, 5)
    left = entry.path.with_name(f".{entry.path.name}.7-ab.tmp")
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    assert kept(used, 5) == used(5) and not left.exists()


@pytest.mark.usefixtures("chance")
def test_networks_without_a_source_or_of_other_packages_are_told_apart_by_their_own_classes(monkeypatch):
    made: dict = {}
    exec("import torch\nclass Net(torch.nn.Linear):\n    pass", made)
    net = made["Net"](2, 2)
    assert Entry(kept, net).path == Entry(kept, net).path != Entry(kept, made["Net"](2, 3)).path
    assert Entry(kept, two_sided(net)).path != Entry(kept, net).path
    timm = pytest.importorskip("timm")
    net, read, real = timm.create_model("resnet10t"), [], inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda thing: read.append(thing) or real(thing))
    assert Entry(kept, net).path
    theirs = {thing for thing in read if thing.__module__.startswith("timm")}
    assert theirs and theirs <= {kind for m in net.modules() for kind in type(m).__mro__}, "what they use is not read"


class Noting(torch.nn.Module):
    def __init__(self, names):
        super().__init__()
        self.names, self.calls = names, 0

    def forward(self, x):
        self.calls += 1
        return x


def test_what_a_pass_notes_does_not_count_and_sets_have_one_order():
    net = Noting({"a", "bb", "ccc"})
    before = Entry(kept, net).path
    net(torch.zeros(1))
    assert Entry(kept, net).path == before == Entry(kept, Noting({"ccc", "bb", "a"})).path
    assert Entry(kept, Noting({"a"})).path != before


def test_functions_without_a_signature_are_kept_too():
    assert Entry(max, [1, 2], executor="serial").path == Entry(max, [1, 2]).path


def test_a_store_that_cannot_be_cleaned_costs_only_time(own_store, monkeypatch):
    entry = Entry(used, 6)
    left = entry.path.with_name(f".{entry.path.name}.7-ab.tmp")
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()

    def refused(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refused)
    assert kept(used, 6) == used(6)

"""Where things lie, files that are written whole or not at all, and results that are kept under what made them."""

import errno
import hashlib
import inspect
import os
import pickle
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from saliency_lib.runtime import code

PACKAGE = Path(__file__).resolve().parents[1]
IN_CHECKOUT = (PACKAGE.parent / "requirements.lock").exists()  # else installed from a wheel
SHARED = PACKAGE.parent if IN_CHECKOUT else PACKAGE / "share"  # notebooks and the papers' tables
CLASSROOM = "saliency-networks.json"  # tells a folder that ``class`` has made, for notebooks that are opened in it
COURSE = next((folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / CLASSROOM).exists()), None)
# Where all that is made lies; of a wheel the folder in which the first process was started.
PROJECT = COURSE or (PACKAGE.parent if IN_CHECKOUT else Path(os.environ.setdefault("SALIENCY_HOME", os.getcwd())))
DOOR = "./run_all.sh" if IN_CHECKOUT else "python -m saliency_lib"


def data_root(root: str | os.PathLike | None = None) -> Path:
    """Folder of the data sets: ``root``, else ``$SALIENCY_DATA``, else ``data/`` of the checkout."""
    return Path(root or os.environ.get("SALIENCY_DATA") or PROJECT / "data").expanduser()


def store_root() -> Path:
    """Folder for what the project makes itself (trained ensembles, results): ``$SALIENCY_STORE``, else ``data/``."""
    return Path(os.environ.get("SALIENCY_STORE") or PROJECT / "data").expanduser()


def results_root() -> Path:
    """Folder of the results that :func:`kept` keeps: ``$SALIENCY_RESULTS``, else ``results/`` in the store."""
    return Path(os.environ.get("SALIENCY_RESULTS") or store_root() / "results").expanduser()


def figures_root() -> Path:
    """Folder of the figures: ``$SALIENCY_FIGURES``, else ``figures/`` of the checkout."""
    return Path(os.environ.get("SALIENCY_FIGURES") or PROJECT / "figures").expanduser()


SAID_AFTER = 2  # seconds of waiting for a lock
REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your quota is used up; free some space",
    errno.EROFS: "the folder is read-only; choose another with SALIENCY_STORE or SALIENCY_FIGURES",
    errno.EACCES: "permission denied; choose another folder with SALIENCY_STORE or SALIENCY_FIGURES",
}


@contextmanager
def writing(path: Path):
    """Make the folder of ``path`` for what the block writes there.

    Raises
    ------
    OSError
        With one sentence that names the file when the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno is None:  # a lock that is held by others, no disk's fault
            raise
        reason = REASONS.get(error.errno, error.strerror or str(error))
        raise OSError(error.errno, f"cannot write {path}: {reason}") from error


@contextmanager
def atomic(path: Path):
    """Yield a temporary path beside ``path``; rename it there on success, remove it on any failure.

    Raises
    ------
    OSError
        As :func:`writing`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with writing(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # or a power cut could leave the name without its content
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, timeout: float = -1, shared: bool = False):
    """Hold the lock file ``path``, which a dying process lets go; wait for at most ``timeout`` seconds, or for ever.

    That it waits for long is said; not in a run (``SALIENCY_QUIET``) for what is ``shared`` by notebooks of that run.

    Raises
    ------
    filelock.Timeout
        If another holds it for longer.
    OSError
        As :func:`writing`.
    """
    lock = FileLock(path)
    with writing(path):
        try:
            lock.acquire(timeout=timeout if timeout >= 0 else SAID_AFTER)
        except Timeout:
            if timeout >= 0:
                raise
            if not (shared and os.environ.get("SALIENCY_QUIET")):
                warnings.warn(f"waiting for another run, which holds {path}", stacklevel=3)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Entry:
    """A place in the store for what a call gives, under its function's code, all it uses, and its arguments.

    Arguments are told apart by value: numbers, strings, tensors, containers and dataclasses of them, networks,
    functions (with what they close over), and objects with a ``key``; an ``executor`` says where, not what, and does
    not count. A file that is broken, or made by an older version of its classes, counts as missing.
    """

    def __init__(self, function: Callable, /, *arguments, **options):
        options = {name: value for name, value in options.items() if name != "executor"}
        self.call = partial(function, *arguments, **options)
        leaves = list(_leaves(self.call))
        functions, words = [v for v in leaves if _is_function(v)], [v for v in leaves if isinstance(v, str)]
        key = code.digest(torch.__version__, *map(_told, leaves), code.of(*functions, words=words))
        self.path = results_root() / f"{code.unwrapped(function).__name__.strip('_')}-{key}.pickle"

    def load(self) -> Any:
        """What was kept; raises LookupError if nothing whole is there."""
        try:
            content = memoryview(self.path.read_bytes())  # whose slices are no copies
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                return pickle.loads(content[32:])
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError):
            pass
        raise LookupError(self.path)

    def save(self, value: Any) -> Any:
        """Keep a value, which is given back; a folder that cannot be written costs only the time."""
        content = pickle.dumps(value, protocol=5)
        with suppress(OSError), atomic(self.path) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        return value


def kept(function: Callable, /, *arguments, **options) -> Any:
    """``function(*arguments, **options)``, from the store if it was called so before and its code is still the same.

    Of two runs that ask for the same at once, the second waits for the first.
    """
    entry = Entry(function, *arguments, **options)
    with ExitStack() as stack:
        with suppress(OSError):  # a folder that cannot be written
            stack.enter_context(locked(entry.path.with_suffix(".lock"), shared=True))
        with suppress(LookupError):
            return entry.load()
        with suppress(OSError):
            for left in entry.path.parent.glob(f".{entry.path.name}.*.tmp"):  # of runs that were killed
                left.unlink(missing_ok=True)
        return entry.save(function(*arguments, **options))


def _leaves(value: Any) -> Iterator[Any]:
    """All that tells a value from others: what it holds, down to what holds nothing, with kinds and sizes between."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, partial):
        inner: Any = value.func, value.args, value.keywords
    elif isinstance(value, (list, tuple)):
        inner = value
    elif isinstance(value, dict):
        inner = list(value.items())
    elif is_dataclass(value) and not isinstance(value, type):
        inner = getattr(value, "key", None), vars(value)
    else:
        yield value
        closed = () if hasattr(value, "__wrapped__") else getattr(value, "__closure__", None) or ()
        inner = *(cell.cell_contents for cell in closed), *(getattr(value, "__defaults__", None) or ())
        if _is_function(value) and not isinstance(value, type):
            inner = *inner, *(getattr(value, "__kwdefaults__", None) or {}).values()
            if inspect.ismethod(value):
                inner = *inner, value.__self__
    yield f"{type(value).__name__} of {len(inner)}"
    for one in inner:
        yield from _leaves(one)


def _is_function(value: Any) -> bool:
    return callable(value) and hasattr(value, "__qualname__")


def _told(value: Any) -> str:
    """What tells a value from others, in words."""
    if isinstance(value, Tensor) and value.dtype == torch.bfloat16:  # which NumPy has not
        return f"bfloat16 {_told(value.view(torch.int16))}"
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.detach().cpu().contiguous().numpy() if isinstance(value, Tensor) else np.ascontiguousarray(value)
        device = value.device.type if isinstance(value, Tensor) else "numpy"
        return f"{device} {array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    if isinstance(value, nn.Module):
        return _told_network(value)
    if isinstance(own := getattr(value, "key", None), str):
        return f"{type(value).__name__} {own}"
    if _is_function(value):
        return value.__qualname__
    if value is None or isinstance(value, (bool, int, float, str, bytes, Path, torch.device)):
        return repr(value)
    raise ValueError(f"a {type(value).__name__} cannot tell results apart; use numbers, tensors, networks or functions")


def _told_network(model: nn.Module) -> str:
    """A network by its modules, their code and what they were built with, and by its weights."""
    if any(code.hooks_of(model)):
        raise ValueError("a network with hooks cannot tell results apart; put them on in the function, not around it")
    said = [f"{name} {code.of_instance(module)}" for name, module in model.named_modules()]
    tensors = model.state_dict() | dict(model.named_buffers())
    said += [f"{name} {_told(tensor)}" for name, tensor in tensors.items() if isinstance(tensor, Tensor)]
    return f"{model} {' '.join(said)}"

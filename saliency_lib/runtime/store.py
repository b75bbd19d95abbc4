"""Where things lie: the checkout, data sets, what the project makes, and files that are written whole or not at all."""

import errno
import os
import secrets
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PROJECT = Path(__file__).resolve().parents[2]


def data_root(root: str | os.PathLike | None = None) -> Path:
    """Folder of the data sets: ``root``, else ``$SALIENCY_DATA``, else ``data/`` of the checkout."""
    return Path(root or os.environ.get("SALIENCY_DATA") or PROJECT / "data").expanduser()


def store_root() -> Path:
    """Folder for what the project makes itself (trained ensembles, caches): ``$SALIENCY_STORE``, else ``data/``."""
    return Path(os.environ.get("SALIENCY_STORE") or PROJECT / "data").expanduser()


def rows_root() -> Path:
    """Folder of the tables that grow a row at a time: ``$SALIENCY_ROWS``, else ``rows/`` in the store."""
    return Path(os.environ.get("SALIENCY_ROWS") or store_root() / "rows").expanduser()


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
def locked(path: Path, timeout: float = -1):
    """Hold the lock file ``path``, which a dying process lets go; wait for at most ``timeout`` seconds, or for ever.

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
            warnings.warn(f"waiting for another run, which holds {path}", stacklevel=3)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()

"""Members that machines without a common folder share: copies at any address that fsspec knows."""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import fsspec

from saliency_lib.runtime.store import writing


def _place(folder: Path, path: Path) -> tuple[fsspec.AbstractFileSystem, str] | None:
    """File system and address of a copy of an ensemble's file; None where ``$SALIENCY_MEMBERS`` is not set."""
    if not (url := os.environ.get("SALIENCY_MEMBERS")):
        return None
    system, root = fsspec.url_to_fs(url)
    return system, f"{root.rstrip('/')}/{path.relative_to(folder.parent).as_posix()}"


def pull(folder: Path, paths: Iterable[Path]) -> None:
    """Fetch those of an ensemble's files that are missing here and that others have put into the common store."""
    for path in paths:
        if not path.exists() and (place := _place(folder, path)) and place[0].exists(place[1]):
            temporary = path.with_name(f".{secrets.token_hex(8)}.fetched")
            try:
                with writing(path):
                    temporary.touch()
                place[0].get_file(place[1], str(temporary))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def push(folder: Path, paths: Iterable[Path], overwrite: bool = False) -> None:
    """Put an ensemble's files into the common store, those that are not there or all, each whole or not at all."""
    for path in paths:
        if (place := _place(folder, path)) and (overwrite or not place[0].exists(place[1])):
            system, address = place
            parent, _, name = address.rpartition("/")
            temporary = f"{parent}/.{name}.{secrets.token_hex(4)}.tmp"
            system.makedirs(parent, exist_ok=True)
            try:
                system.put_file(str(path), temporary)
                system.mv(temporary, address)
            except BaseException:
                if system.exists(temporary):
                    system.rm_file(temporary)
                raise

"""A training that is long goes on after a kill where it was a few minutes before, and ends with the same weights."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from saliency_lib.runtime import deadline
from saliency_lib.runtime.store import atomic

EVERY = 300.0  # seconds between two copies, so that short trainings write none


class Checkpoint:
    """The state of a training after an epoch, in one file; without a ``path`` nothing is kept.

    Parameters
    ----------
    parts : sequence
        What changes while it trains, and has a ``state_dict``.
    generators : sequence of Generator
        Of order and augmentation.
    histories : sequence of History
        They are filled anew by :meth:`load`.
    """

    def __init__(self, path: Path | None, parts: Sequence[Any], generators: Sequence, histories: Sequence):
        self.path, self.parts, self.generators, self.histories = path, parts, generators, histories
        self.last = time.monotonic()

    def load(self, snapshots: Sequence[int] = ()) -> int:
        """Bring all to the state of the file; the epochs that are done. A file that cannot be read counts as none, and
        so does one that lacks some of the ``snapshots`` up to its epoch."""
        state = None
        if self.path and self.path.exists():
            with suppress(Exception):  # torch raises many kinds for a file that is broken or of another version
                state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state is None or any(
            epoch not in saved["snapshots"]
            for saved in state["histories"]
            for epoch in snapshots
            if epoch <= state["epoch"]
        ):
            return 0
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved)
        torch.set_rng_state(state["global"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"])
        for history, saved in zip(self.histories, state["histories"], strict=True):
            for name, value in saved.items():
                setattr(history, name, value)
        return state["epoch"]

    def save(self, epoch: int) -> None:
        """Keep the state after an epoch, if the last was kept long ago; a full disk stops no training.

        Once the budget of the run is spent it is kept, and :class:`~saliency_lib.runtime.deadline.OutOfTime` raised.
        """
        over = deadline.passed()
        if self.path and (over or time.monotonic() - self.last >= EVERY):
            state = {
                "epoch": epoch,
                "parts": [part.state_dict() for part in self.parts],
                "generators": [generator.get_state() for generator in self.generators],
                "global": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
                "histories": [asdict(history) for history in self.histories],
            }
            with suppress(OSError, RuntimeError), atomic(self.path) as temporary:  # PyTorch's, on a full disk
                torch.save(state, temporary)
            self.last = time.monotonic()
        if over:
            raise deadline.OutOfTime

    def remove(self) -> None:
        """The training is done."""
        if self.path:
            self.path.unlink(missing_ok=True)

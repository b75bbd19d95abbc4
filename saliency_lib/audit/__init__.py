"""Audit of one's own networks: load checkpoints and pictures, measure, and say in plain words what can be said."""

from saliency_lib.audit import sentences
from saliency_lib.audit.agreement import Agreement, agreement, votes_needed
from saliency_lib.audit.networks import (
    Loaded,
    Problems,
    builder,
    load,
    matching,
    noise_level,
    predictions,
    shaken,
    taking,
)
from saliency_lib.audit.pictures import Pictures, known, normalised, read, targets
from saliency_lib.audit.signal import Signal, signal
from saliency_lib.audit.structure import against_random, checkerboard

__all__ = [
    "Agreement", "Loaded", "Pictures", "Problems", "Signal", "against_random", "agreement", "builder", "checkerboard",
    "known", "load", "matching", "noise_level", "normalised", "predictions", "read", "shaken",
    "signal", "taking", "targets", "votes_needed", "sentences",
]  # fmt: skip

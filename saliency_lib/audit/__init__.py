"""Audit of one's own networks: load checkpoints and pictures, measure, and say in plain words what can be said."""

from saliency_lib.audit import sentences
from saliency_lib.audit.agreement import Agreement, Signal, agreement, signal, votes_needed
from saliency_lib.audit.networks import compatible, load, noisy_copies
from saliency_lib.audit.pictures import Pictures, constants, normalised, read, targets
from saliency_lib.audit.problems import Problems, Sentences
from saliency_lib.audit.structure import against_random, checkerboard
from saliency_lib.audit.zoo import Builder, builder

__all__ = [
    "Agreement", "Builder", "Pictures", "Problems", "Sentences", "Signal", "against_random", "agreement", "builder",
    "checkerboard", "compatible", "constants", "load", "noisy_copies", "normalised", "read", "sentences", "signal",
    "targets", "votes_needed",
]  # fmt: skip

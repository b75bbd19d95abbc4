"""An ensemble is files: networks that differ only in chance, trained once, one file a member and one manifest."""

from saliency_lib.ensembles.spec import EnsembleSpec, build, over_shares, shares, splits
from saliency_lib.ensembles.train import Ensemble, get, outcome

__all__ = ["Ensemble", "EnsembleSpec", "build", "get", "outcome", "over_shares", "shares", "splits"]

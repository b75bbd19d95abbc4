"""An ensemble is files: networks that differ only in chance, trained once, one file a member and one manifest."""

from saliency_lib.ensembles.files import Ensemble, member_path, snapshot_path
from saliency_lib.ensembles.getting import get, train_members
from saliency_lib.ensembles.spec import GROWING, EnsembleSpec, build, splits

__all__ = [
    "GROWING",
    "Ensemble",
    "EnsembleSpec",
    "build",
    "get",
    "member_path",
    "snapshot_path",
    "splits",
    "train_members",
]

"""What a map is worth by four criteria, after Bykov et al. 2022, Tab. 1: one value per image, named as in Quantus."""

from saliency_lib.quality.faithfulness import faithfulness_correlation
from saliency_lib.quality.localisation import ranking_auc, relevance_rank_accuracy
from saliency_lib.quality.robustness import max_sensitivity
from saliency_lib.quality.sparseness import gini

__all__ = ["faithfulness_correlation", "gini", "max_sensitivity", "ranking_auc", "relevance_rank_accuracy"]

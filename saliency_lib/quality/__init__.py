"""What a map is worth: one value per image. The criteria of Bykov et al. 2022, Tab. 1, are named as in Quantus."""

from saliency_lib.quality.curves import deletion, insertion
from saliency_lib.quality.faithfulness import faithfulness_correlation
from saliency_lib.quality.localisation import boxes, ranking_auc, relevance_rank_accuracy
from saliency_lib.quality.predictions import input_drop, prediction_difference
from saliency_lib.quality.robustness import max_sensitivity
from saliency_lib.quality.texture import (
    blurred_to,
    box_blur,
    checkerboard_power,
    colourfulness,
    gini,
    grain,
    roughness,
    total_variation,
)

__all__ = [
    "blurred_to", "box_blur", "boxes", "checkerboard_power", "colourfulness", "deletion", "faithfulness_correlation",
    "gini", "grain", "input_drop", "insertion", "max_sensitivity", "prediction_difference", "ranking_auc",
    "relevance_rank_accuracy", "roughness", "total_variation",
]  # fmt: skip

"""Dreams: pictures that make networks as sure of a class as can be, by lucent, for one network or many at once."""

from saliency_lib.dreams.dreaming import dream, views
from saliency_lib.dreams.quietly import objectives, param, render, transform

__all__ = ["dream", "objectives", "param", "render", "transform", "views"]

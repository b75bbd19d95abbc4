"""The site: executed notebooks, verdicts and the library's pages as HTML that needs no network."""

from saliency_lib.site.building import EDITIONS, build

__all__ = ["EDITIONS", "build"]

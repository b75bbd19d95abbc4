"""The site: executed notebooks, verdicts and the library's pages as HTML that needs no network."""

from saliency_lib.book.site.building import EDITIONS, build

__all__ = ["EDITIONS", "build"]

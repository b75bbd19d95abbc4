"""A Sphinx extension: formulas become MathML while the site is built, so that pages need no script and no network."""

import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def mathml(formula: str, *, as_block: bool = False) -> str:
    """TeX to MathML; raises MathError or SyntaxError for what docutils does not know."""
    # docutils takes \tfrac14 for 14 over what follows
    braced = re.sub(r"(\\[dt]?frac) ?(\w)(\w)", r"\1{\2}{\3}", formula)
    return latex2mathml.tex2mathml(braced, as_block=as_block)


def _written(visitor, node: nodes.Element, as_block: bool) -> None:
    try:
        visitor.body.append(mathml(node.astext(), as_block=as_block))
    except (MathError, SyntaxError) as error:  # a warning fails the build
        LOGGER.warning("formula %r cannot be shown: %s", node.astext(), error, location=node)
    raise nodes.SkipNode


def _inline(visitor, node: nodes.Element) -> None:
    _written(visitor, node, as_block=False)


def _block(visitor, node: nodes.Element) -> None:
    visitor.body.append('<div class="formula">')
    try:
        _written(visitor, node, as_block=True)
    finally:
        visitor.body.append("</div>")


def setup(app) -> dict:
    """Register the renderer ``mathml``; Sphinx calls this."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

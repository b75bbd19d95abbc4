"""A Sphinx extension: formulas become MathML while the site is built, so that pages need no script and no network."""

import re
from functools import partial

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
        made = mathml(node.astext(), as_block=as_block)
        visitor.body.append(f'<div class="formula">{made}</div>' if as_block else made)
    except (MathError, SyntaxError) as error:  # a warning fails the build
        LOGGER.warning("formula %r cannot be shown: %s", node.astext(), error, location=node)
    raise nodes.SkipNode


def setup(app) -> dict:
    """Register the renderer ``mathml``; Sphinx calls this."""
    inline, block = (partial(_written, as_block=as_block) for as_block in (False, True))
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

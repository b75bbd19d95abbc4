"""The site's column shows code whole, and no page is wider than its window."""

import pytest
from chromium import NEEDED, chromium

from saliency_lib.book import profiles

pytestmark = [pytest.mark.browser, pytest.mark.notebook]


@NEEDED
def test_no_code_cell_scrolls_sideways(smoke_site):
    with chromium() as (page, outside):
        for name in profiles.notebooks():
            page.set_viewport_size({"width": 1280, "height": 900})
            page.goto((smoke_site / "notebooks" / f"{name}.html").as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            cells = page.locator("div.cell_input pre")
            wider = cells.evaluate_all("all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)")
            assert cells.count() > 10 and not wider, f"{name}: {wider[:1]}"
            page.set_viewport_size({"width": 420, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= 420, name
        assert not outside

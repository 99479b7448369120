"""The page."""

from __future__ import annotations

import jinja2

from wbcclf.inspection.pages._html import PAGES, render_page

# Its own templates stand on the frame of all pages.
LOADERS = [jinja2.PackageLoader(room) for room in ("wbcclf.serving", "wbcclf.inspection.pages")]

PAGE = render_page(
    PAGES.overlay(loader=jinja2.ChoiceLoader(LOADERS)), "serving.html", script="serving.js"
)

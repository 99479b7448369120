"""Draw the picture of the browser page: python docs/pictures/draw_browser.py MODEL.onnx.

MODEL.onnx is the export of the packaged model. The cells are drawn by make_blood_cells. It needs
Chromium and Playwright, unlike the pictures of `make pictures`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from wbcclf import export_page, make_blood_cells

NAMES = ["basophil", "eosinophil", "monocyte", "neutrophil"]


def main(model: str) -> None:
    """Draw the page with a few cells."""
    cells = make_blood_cells(4, classes=NAMES, image_size=256, random_state=4)
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        export_page(model, root)
        files = []
        for number, image in enumerate(cells.images):
            files.append(Path(root, f"cell {number + 1}.png"))
            Image.fromarray(image).save(files[-1])
        options = ["--no-sandbox", "--disable-gpu"]
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=options
        )
        page = chromium.new_page(viewport={"width": 1280, "height": 1500}, color_scheme="light")
        page.goto(Path(root, "index.html").as_uri())
        page.locator("#files").set_input_files(files)
        done = f"{len(files)} pictures"
        expect(page.locator("#progress")).to_have_text(done, timeout=120_000)
        picture = Image.open(BytesIO(page.screenshot(full_page=True))).convert("RGB")
        chromium.close()
    method = Image.Quantize.MAXCOVERAGE
    picture = picture.quantize(256, method, kmeans=2, dither=Image.Dither.NONE)
    picture.save(Path(__file__).parent / "browser.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])

"""Follow docs/tutorial.md, write what every step printed into it, and take its pictures.

Run: python docs/pictures/tutorial.py; it needs Chromium. `make pictures` does so, some minutes.

The blocks of the page are run one after the other in an empty folder: `py` blocks are written to
the file that their first line names, `sh` blocks go to the shell. A `text` block behind one is its
output.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PAGE = HERE.parent / "tutorial.md"
BLOCK = re.compile(r"^```(py|sh)\n(.*?)^```\n(\n```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
OPTIONS = ["--no-sandbox", "--disable-gpu"]  # root has no sandbox
SHOTS = {"explore": 1000, "audit": 700, "report": 1300, "maps": 900}  # heights in pixels


def run(folder: Path, block: re.Match) -> str:
    """Run one block in the folder, and return it with its output."""
    language, code, output = block.groups()
    if language == "py":
        Path(folder, code.partition("\n")[0].removeprefix("# ")).write_text(code)
        return block[0]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "COLUMNS": "96"}
    done = subprocess.run(
        code,
        shell=True,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(code, done.stdout, sep="", flush=True)
    lines = [line.rstrip() for line in done.stdout.splitlines() if "━━━ " not in line]
    shown = "\n".join(lines)
    return f"```sh\n{code}```\n" + (f"\n```text\n{shown}\n```\n" if output else "")


def take_pictures(folder: Path) -> None:
    """Take pictures of the pages that the steps wrote."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        for name, height in SHOTS.items():
            page = browser.new_page(viewport={"width": 1000, "height": height})
            page.goto((folder / f"{name}.html").as_uri())
            page.screenshot(path=folder / f"{name}.png")
            picture = Image.open(folder / f"{name}.png").convert("RGB")
            picture = picture.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            picture.save(HERE / "tutorial" / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    (HERE / "tutorial").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        text = BLOCK.sub(lambda block: run(folder, block), PAGE.read_text())
        PAGE.write_text(text)
        take_pictures(folder)

"""Pages looked at in headless Chromium, where there is one."""

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
).split()
DARK, LIGHT = 0, 1
MEASURE = """
<script>
addEventListener("load", () => {
const inner = document.querySelector("iframe").contentDocument, root = inner.documentElement;
document.title = JSON.stringify({
  width: root.clientWidth, needed: Math.max(root.scrollWidth, inner.body.scrollWidth),
  pictures: [...inner.querySelectorAll("svg[role=img]")].map(p => Math.round(p.getBoundingClientRect().right)),
})});
</script>
"""

needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here to look at pages with")


def _run(folder: Path, page: Path, *options: str) -> str:
    assert BROWSER is not None
    command = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def framed(folder: Path, text: str, width: int) -> dict[str, object]:
    """How a page takes a window of this width: its own width, the width that it needs, where pictures end.

    A frame of that width holds it, since browsers make no window as narrow as a phone; the word that forbids scripts is
    taken out of the copy.
    """
    free = re.sub(r"<meta http-equiv=[^>]*>", "", text)
    frame = f'<iframe style="border:0" width="{width}" height="900" srcdoc="{escape(free, quote=True)}"></iframe>'
    page = folder / "framed.html"
    page.write_text(f"<!doctype html><title></title>{frame}{MEASURE}", "utf-8")
    found = re.search("<title>(.*?)</title>", _run(folder, page, "--dump-dom"))
    assert found
    return json.loads(found[1])


def shot(folder: Path, text: str, width: int, scheme: int) -> np.ndarray:
    """(height, width, 3) a page as a screen shows it."""
    page, picture = folder / "page.html", folder / f"{width}-{scheme}.png"
    page.write_text(text, "utf-8")
    wanted = f"--blink-settings=preferredColorScheme={scheme}"
    _run(folder, page, wanted, f"--window-size={width},1400", f"--screenshot={picture}")
    return np.asarray(Image.open(picture).convert("RGB"))

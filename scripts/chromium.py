"""Chromium as the system has it, for what looks at the built book: pictures, the PDF, the tests."""

import os
import shutil

# Every figure to play with has been drawn, or has said why not.
READY = "[...document.querySelectorAll('[data-widget]')].every((place) => place.dataset.ready)"
FLAGS = ("--no-sandbox", "--disable-gpu")


def find() -> str | None:
    """The program, or what ALEXNET_CHROMIUM names; None where there is none."""
    known = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("ALEXNET_CHROMIUM") or next(
        (path for path in map(shutil.which, known) if path), None
    )

"""The parts of a documentation page that tests read, found by the comments in front of them.

<!-- test: name -->                       a block of commands or a table that a test reads
<!-- not run in the tests: reason -->     a block of commands that no test runs
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = re.compile(r"(?:<!-- (?P<mark>[^\n]+) -->\n)?```bash\n(?P<text>.*?)```", re.DOTALL)


def commands(page: Path, name: str) -> list[list[str]]:
    """The words of each command in the block that is marked by ``name``, comments left out."""
    (text,) = (text for mark, text in COMMANDS.findall(page.read_text()) if mark == f"test: {name}")
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def command(page: Path, name: str) -> list[str]:
    """The words of the only command in the block that is marked by ``name``."""
    (words,) = commands(page, name)
    return words


def table(page: Path, name: str) -> dict[str, list[str]]:
    """The table that is marked by ``name``: the other cells of each row by its first cell, without the header."""
    (lines,) = re.findall(
        rf"^<!-- test: {re.escape(name)} -->\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE
    )
    _, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines())
    return {row[0]: row[1:] for row in rows}


def links(page: Path) -> set[str]:
    """Links and pictures of a page that lead to files of this repository, with their anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text())
    return {link for pair in found for link in pair if link and "://" not in link}


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

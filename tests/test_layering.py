"""Imports between the rooms of the package run downward only, late ones inside functions included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lawm_lerobot"

# The rooms that each room may import from, besides itself.
ALLOWED: dict[str, set[str]] = {
    "decoder_notice": set(),
    "policy_flags": set(),
    "files": set(),
    "processes": set(),
    "method": set(),
    "statistics": set(),
    "hub": {"files"},
    "checkpoints": {"hub"},
    "labels": {"method"},
    "envs": {"files"},
    "policies": {"method", "hub", "checkpoints", "labels", "files", "processes"},
    "importing": {"hub", "labels", "files", "processes"},
    "labelling": {"method", "hub", "statistics", "labels", "policies", "importing", "files", "policy_flags"},
    "inspection": {"method", "statistics", "labels", "policies", "files", "policy_flags"},
    "benchmark": {"method", "statistics", "policies", "inspection", "envs", "files", "processes"},
    "scripts": {
        "policies",
        "importing",
        "labelling",
        "inspection",
        "benchmark",
        "envs",
        "hub",
        "files",
        "policy_flags",
    },
    "pretraining": {"policies"},
}


def imports(file: Path) -> set[str]:
    """Full names of what a file imports; the package imports nothing relatively."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def modules() -> dict[str, Path]:
    paths = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in paths.items() if name != "__init__"}


def violations() -> set[tuple[str, str]]:
    """(module, room) for every import of a room that the importing module's room may not import."""
    found = set()
    for name, path in modules().items():
        room = name.partition(".")[0]
        used = {
            parts[1]
            for module in imports(path)
            if (parts := module.split("."))[0] == "lawm_lerobot" and parts[1:]
        }
        found |= {(name, other) for other in used - ALLOWED[room] - {room}}
    return found


def test_imports_follow_the_arrows() -> None:
    assert not violations()


def test_the_arrows_have_no_circle() -> None:
    assert list(TopologicalSorter(ALLOWED).static_order())


def test_the_method_knows_nothing_of_lerobot() -> None:
    for path in (PACKAGE / "method").rglob("*.py"):
        assert not {module for module in imports(path) if module.partition(".")[0] == "lerobot"}, path

"""Rows of the speed report, and the report as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def row(
    what: str,
    value: float | Mapping[str, float],
    target: float | None = None,
    at_most: bool = True,
    unit: str = "x",
) -> dict[str, Any]:
    """One row of the table.

    Args:
        what: The measured quantity, and what it is compared with.
        value: A number, or a `timing.spread`.
        target: The value to reach, None for none.
        at_most: The target is an upper limit, else a lower one.
        unit: ``x`` for a ratio, else a physical unit.
    """
    found = value if isinstance(value, Mapping) else {"median": value}
    return {
        "what": what,
        "value": found["median"],
        "q1": found.get("q1"),
        "q3": found.get("q3"),
        "target": target,
        "at_most": at_most,
        "unit": unit,
    }


def target_met(measured: Mapping[str, Any]) -> str:
    """``yes`` or ``no`` for a row with a target, else nothing."""
    value, target = measured["value"], measured["target"]
    if target is None:
        return ""
    return "yes" if (value <= target if measured["at_most"] else value >= target) else "no"


def cells(section: str, measured: Mapping[str, Any]) -> list[str]:
    """The texts of a row's cells."""

    def number(value: float) -> str:
        return f"{value:.2f}" if measured["unit"] == "x" else f"{value:.3g}"

    unit = "x" if measured["unit"] == "x" else f" {measured['unit']}"
    value = number(measured["value"]) + unit
    if measured["q1"] is not None:
        value += f" ({number(measured['q1'])}-{number(measured['q3'])})"
    limit = "at most" if measured["at_most"] else "at least"
    target = "" if measured["target"] is None else f"{limit} {measured['target']:g}{unit}"
    return [section, measured["what"], value, target, target_met(measured)]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, the first of them the head, with columns that line up in a terminal too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ruled = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in ruled
    ]
    return "".join(f"| {line} |\n" for line in lines)


def machine_line(report: Mapping[str, Any]) -> str:
    """The machine of a report in one line."""
    found = report["machine"]
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("python", "torch", "lerobot"))
    looked = "; a quick look, not figures to quote" if report["quick"] else ""
    return (
        f"{found['processor']}, {found['cores']} cores, {found['gpu'] or 'no GPU'}; measured on {report['device']} "
        f"with {report['threads']} threads; {versions}{looked}"
    )


def table(report: Mapping[str, Any]) -> str:
    """The machine and every section's rows as markdown, ratios before seconds and bytes."""
    rows = [(name, line) for name, found in report["sections"].items() for line in found["ratios"]]
    rows.sort(key=lambda entry: entry[1]["unit"] != "x")  # stable: sections keep their order
    head = ["section", "what", "ratio or value (q1-q3)", "target", "met?"]
    return f"{machine_line(report)}\n\n{markdown([head, *(cells(name, line) for name, line in rows)])}"


def entries_beside_the_table(report: Mapping[str, Any]) -> str:
    """All that the sections report and the table does not show, a line for each entry."""
    lines = []
    for name, found in report["sections"].items():
        lines.append(f"\n{name}")
        for key, value in found.items():
            if isinstance(value, dict):
                lines += [f"  {key}.{inner}: {json.dumps(entry)}" for inner, entry in value.items()]
            elif isinstance(value, list) and key != "ratios":
                lines += [f"  {key}: {json.dumps(entry)}" for entry in value]
            elif key != "ratios":
                lines.append(f"  {key}: {value}")
    return "\n".join(lines)

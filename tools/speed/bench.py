"""Every speed figure of this repository, by one command, in one table.

    python -m tools.speed                                  # all sections, on two processor cores
    python -m tools.speed --device=cuda --output=outputs/bench/cuda.json
    python -m tools.speed --quick --only=steps,control     # a look: fewer rows and turns

The report is written after each section, as JSON and, beside it, the table as markdown. Given the same ``--output``
again, an interrupted bench goes on with the sections that are missing; ``--fresh`` starts over.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lawm_lerobot.benchmark.machine import machine

#: Of measured processes on the CPU: figures of machines with more cores stay comparable.
THREADS = 2
#: How far a ratio that should be 1 may lie above it: medians of equal steps differ by this much between runs.
NOISE = 0.05

Section = Callable[[bool, str], dict[str, Any]]
#: What each section calls with (quick, device). A function's dictionary has a list `ratios` of `figure`s.
SECTIONS = {
    "steps": "tools.speed.steps:bench_steps",
    "rssm": "tools.speed.steps:bench_rssm",
    "loading": "tools.speed.loading:bench_loading",
    "import": "tools.speed.bench:importing",
    "control": "tools.speed.bench:control",
    "startup": "tools.speed.startup:bench_startup",
    "scaling": "tools.speed.scaling:bench_scaling",
}


def figure(
    what: str,
    value: float | Mapping[str, float],
    target: float | None = None,
    at_most: bool = True,
    unit: str = "x",
) -> dict[str, Any]:
    """One row of the table.

    Args:
        what: Is measured, over what.
        value: A number, or a `timing.spread`.
        target: To meet, None for none.
        at_most: The target is an upper limit, else a lower one.
        unit: ``x`` for a ratio, else a physical one.
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


# --- sections that are scripts of their own, with other reports -----------------------------------------


def importing(quick: bool, device: str) -> dict[str, Any]:
    """`bench_import`, which knows no GPU, as a program: the importer's workers import its main module, and not this one."""
    command = [sys.executable, "-m", "tools.speed.importing", *(["--quick"] if quick else [])]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    ratios = [
        figure(f"{kind}: times as fast as LeRobot's loop", found["times_faster"], target=4, at_most=False)
        for kind, found in report["kinds"].items()
    ]
    return {**report, "ratios": ratios}


def control(quick: bool, device: str) -> dict[str, Any]:
    """`bench_control`; on the CPU with small pictures, or the backbone would hide what the plugin costs."""
    from tools.speed.control import bench_control

    size = {"height": 128, "width": 128} if device == "cpu" else {}
    few = {"chunks": 8, "queued": 400} if quick else {"chunks": 60}
    report = bench_control(device, **size, **few)
    ratios = [
        figure(f"{step}: lawm_act over act, median", report[kind]["ratio"]["median"], target=1 + NOISE)
        for kind, step in (("network", "step with the network"), ("queue", "step from the queue"))
    ]
    size_of = report["checkpoint_bytes"]
    ratios.append(figure("checkpoint bytes: lawm_act over act", size_of["lawm_act"] / size_of["act"], 1))
    return {**report, "ratios": ratios}


# --- the table ------------------------------------------------------------------------------------------


def met(row: Mapping[str, Any]) -> str:
    value, target = row["value"], row["target"]
    if target is None:
        return ""
    return "yes" if (value <= target if row["at_most"] else value >= target) else "no"


def cells(section: str, row: Mapping[str, Any]) -> list[str]:
    def number(value: float) -> str:
        return f"{value:.2f}" if row["unit"] == "x" else f"{value:.3g}"

    unit = "x" if row["unit"] == "x" else f" {row['unit']}"
    value = number(row["value"]) + unit
    if row["q1"] is not None:
        value += f" ({number(row['q1'])}-{number(row['q3'])})"
    limit = "at most" if row["at_most"] else "at least"
    target = "" if row["target"] is None else f"{limit} {row['target']:g}{unit}"
    return [section, row["what"], value, target, met(row)]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, the first of them the head, with columns that line up in a terminal too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ruled = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in ruled]
    return "".join(f"| {line} |\n" for line in lines)


def where(report: Mapping[str, Any]) -> str:
    """The machine in a line."""
    found = report["machine"]
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("python", "torch", "lerobot"))
    looked = "; a quick look, not figures to quote" if report["quick"] else ""
    return (
        f"{found['processor']}, {found['cores']} cores, {found['gpu'] or 'no GPU'}; measured on {report['device']} "
        f"with {report['threads']} threads; {versions}{looked}"
    )


def table(report: Mapping[str, Any]) -> str:
    """The machine and every section's figures as markdown, ratios before seconds and bytes."""
    rows = [(name, row) for name, found in report["sections"].items() for row in found["ratios"]]
    rows.sort(key=lambda entry: entry[1]["unit"] != "x")  # stable: sections keep their order
    head = ["section", "what", "ratio or value (q1-q3)", "target", "met?"]
    return f"{where(report)}\n\n{markdown([head, *(cells(name, row) for name, row in rows)])}"


def details(report: Mapping[str, Any]) -> str:
    """All that a section reports beside its rows of the table, a line for each entry."""
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


# --- running --------------------------------------------------------------------------------------------


def load(names: Iterable[str]) -> dict[str, Section]:
    """The sections' functions, all of them before the first is measured.

    Raises:
        SystemExit: If a section is unknown, or something that it needs is not installed.
    """
    found: dict[str, Section] = {}
    for name in names:
        if name not in SECTIONS:
            raise SystemExit(f"There is no section {name!r}: choose --only from {','.join(SECTIONS)}.")
        try:
            found[name] = pkgutil.resolve_name(SECTIONS[name])
        except ImportError as error:
            raise SystemExit(f"The section {name!r} cannot run ({error}): leave it out of --only.") from error
    return found


def begin(output: Path, device: str, quick: bool, fresh: bool) -> dict[str, Any]:
    """A new report, or the one at ``output`` if it was taken alike.

    Raises:
        SystemExit: If it was not: figures of two machines make no table.
    """
    report: dict[str, Any] = {
        "machine": machine(),
        "device": device,
        "threads": torch.get_num_threads(),
        "quick": quick,
    }
    if fresh or not output.exists():
        return {**report, "sections": {}}
    earlier = json.loads(output.read_text())
    differs = [key for key, value in report.items() if earlier.get(key) != value]
    if differs:
        raise SystemExit(
            f"{output} was taken with another {', '.join(differs)}: choose another --output, or replace it with --fresh."
        )
    return earlier


def save(report: Mapping[str, Any], output: Path) -> None:
    # Not above: memory is measured in processes that import this module, and should be of what they measure.
    from lawm_lerobot.files import write_text

    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(report, indent=1) + "\n")
    write_text(output.with_suffix(".md"), table(report))


def bench(
    only: Sequence[str], output: Path, device: str = "cpu", quick: bool = False, fresh: bool = False
) -> dict[str, Any]:
    """Measure the sections that ``output`` lacks, and write it after each.

    Returns:
        ``machine``, ``device``, ``threads``, ``quick``, and ``sections``: what each section's function returned.
    """
    if device == "cpu":
        torch.set_num_threads(THREADS)
    sections = load(only)
    report = begin(output, device, quick, fresh)
    done = [name for name in only if name in report["sections"]]
    if done:
        print(f"Taken over from {output}: {', '.join(done)} (--fresh measures anew).", file=sys.stderr)
    bar = tqdm([name for name in only if name not in done], desc="bench")
    for name in bar:
        bar.set_postfix_str(name)
        with redirect_stdout(sys.stderr):  # what LeRobot prints
            found = sections[name](quick, device)
        every = {**report["sections"], name: found}
        report["sections"] = {key: every[key] for key in SECTIONS if key in every}
        save(report, output)
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rows and turns: a look, not figures to quote"
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--output", type=Path, default=Path("docs/results/speed.json"))
    parser.add_argument("--fresh", action="store_true", help="measure anew what the output already has")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here: choose --device=cpu.")
    report = bench(given.only.split(","), given.output, given.device, given.quick, given.fresh)
    print(table(report) + details(report))


if __name__ == "__main__":
    main()

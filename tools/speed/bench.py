"""Every speed measurement of this repository, by one command, in one table.

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
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lawm_lerobot.benchmark.machine import machine
from lawm_lerobot.files import write_json, write_text
from tools.speed.processes import use_threads
from tools.speed.table import entries_beside_the_table, table

#: A function of (quick, device), whose report has the section's rows of the table as ``ratios``.
Section = Callable[[bool, str], dict[str, Any]]
#: Module and function of each section. Its module is imported only if the section is asked for: one of them may need what
#: is not installed.
SECTIONS = {
    "steps": "tools.speed.steps:bench_steps",
    "rssm": "tools.speed.rssm:bench_rssm",
    "loading": "tools.speed.loading:bench_loading",
    "import": "tools.speed.importing:import_section",
    "control": "tools.speed.control:control_section",
    "startup": "tools.speed.startup:bench_startup",
    "scaling": "tools.speed.scaling:bench_scaling",
    "runs": "tools.speed.runs:bench_runs",
}


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


def new_or_earlier_report(output: Path, device: str, quick: bool, fresh: bool) -> dict[str, Any]:
    """A report without sections, or the one in ``output`` if it was taken alike.

    Raises:
        SystemExit: If it was not: measurements of two machines make no table.
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
    """Write the report, and its table beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, report)
    write_text(output.with_suffix(".md"), table(report))


def bench(
    only: Sequence[str], output: Path, device: str = "cpu", quick: bool = False, fresh: bool = False
) -> dict[str, Any]:
    """Measure the sections that ``output`` lacks, and write it after each.

    Returns:
        ``machine``, ``device``, ``threads``, ``quick``, and ``sections``: the report of each section's function.
    """
    use_threads(device)
    sections = load(only)
    report = new_or_earlier_report(output, device, quick, fresh)
    done = [name for name in only if name in report["sections"]]
    if done:
        print(f"Taken over from {output}: {', '.join(done)} (--fresh measures anew).", file=sys.stderr)
    bar = tqdm([name for name in only if name not in done], desc="bench")
    for name in bar:
        bar.set_postfix_str(name)
        with redirect_stdout(sys.stderr):  # LeRobot prints there.
            found = sections[name](quick, device)
        every = {**report["sections"], name: found}
        report["sections"] = {key: every[key] for key in SECTIONS if key in every}
        save(report, output)
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table and what the sections report beside it."""
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
    print(table(report) + entries_beside_the_table(report))

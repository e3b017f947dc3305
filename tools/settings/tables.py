"""Tables of compared settings, as markdown, from the rows that `compare_settings` writes."""

from typing import Any

import numpy as np

from lawm_lerobot.statistics.intervals import paired_t_interval

Row = dict[str, Any]


def settings_table(rows: list[Row]) -> str:
    """A line for each setting, with the metrics of its seeds side by side."""
    columns = {
        "error / copying x_0": lambda row: f"{row['over_copy']:.2f}",
        "error with other latents / own": lambda row: f"{row['shuffle_ratio']:.2f}",
        "effective rank": lambda row: f"{row['latent_rank']:.1f}",
        "policy R2": lambda row: "-" if row["policy_r2"] is None else f"{row['policy_r2']:.2f}",
        "action R2": lambda row: f"{np.mean(row['action_r2']):.2f}",
        "within an episode": lambda row: f"{np.mean(row['action_r2_within_episode']):.2f}",
        "from few labels": lambda row: f"{np.mean(row['action_r2_few_labels']):.2f}",
        # Not in rows that were taken before it was measured.
        "imitation error": lambda row: f"{row['imitation_error']:.3f}" if "imitation_error" in row else "-",
        "from scratch": lambda row: (
            f"{row['imitation_error_from_scratch']:.3f}" if "imitation_error_from_scratch" in row else "-"
        ),
        "CPU ms a step": lambda row: str(row["cpu_ms_per_step"]),
    }
    lines = [f"| setting | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for setting in dict.fromkeys(row["setting"] for row in rows):
        seeds = [row for row in rows if row["setting"] == setting]
        cells = [" / ".join(metric(row) for row in seeds) for metric in columns.values()]
        lines.append(f"| `{setting}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def imitation_table(rows: list[Row]) -> str:
    """Each setting's imitation error beside that from scratch, and the mean over the settings with new tasks."""
    lines = [
        "| setting | imitation error, by seed | mean | from scratch | mean | difference (95%) | |",
        "|---" * 7 + "|",
    ]
    with_new_tasks: list[tuple[float, float]] = []
    for setting, seeds in by_setting(rows).items():
        ours = [row["imitation_error"] for row in seeds.values()]
        scratch = [row["imitation_error_from_scratch"] for row in seeds.values()]
        means = float(np.mean(ours)), float(np.mean(scratch))
        if new_tasks(setting):
            with_new_tasks.append(means)
        lists = [" ".join(f"{value:.3f}" for value in values) for values in (ours, scratch)]
        lines.append(
            f"| `{setting}` | {lists[0]} | {means[0]:.3f} | {lists[1]} | {means[1]:.3f} "
            f"| {difference(ours, scratch)} | {means[0] / means[1] - 1:+.0%} |"
        )
    if len(with_new_tasks) > 1:
        ours, scratch = [a for a, _ in with_new_tasks], [b for _, b in with_new_tasks]
        lines.append(
            f"| the {len(with_new_tasks)} with new tasks | | {np.mean(ours):.3f} | | {np.mean(scratch):.3f} "
            f"| {difference(ours, scratch)} | {np.mean(ours) / np.mean(scratch) - 1:+.0%} |"
        )
    return "\n".join(lines)


def against_table(rows: list[Row], against: str) -> str:
    """Differences of each setting from another one, on the seeds that they share and the same tasks.

    Raises:
        SystemExit: If there are no rows of that other one.
    """
    settings = by_setting(rows)
    if against not in settings:
        raise SystemExit(f"There are no figures of --against={against}: choose from {', '.join(settings)}.")
    lines = [f"| minus `{against}` (95%) | error / copying x_0 | imitation error |", "|---" * 3 + "|"]
    for setting, seeds in settings.items():
        shared = [seed for seed in seeds if seed in settings[against]]
        # Errors on different tasks are not on one scale.
        if setting == against or not shared or new_tasks(setting) != new_tasks(against):
            continue
        cells = [
            difference(
                [seeds[seed][key] for seed in shared], [settings[against][seed][key] for seed in shared]
            )
            for key in ("over_copy", "imitation_error")
        ]
        lines.append(f"| `{setting}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_setting(rows: list[Row]) -> dict[str, dict[int, Row]]:
    """The rows that have an imitation error, by setting and seed."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        if "imitation_error" in row:
            found.setdefault(row["setting"], {})[row["seed"]] = row
    return found


def new_tasks(setting: str) -> list[str]:
    """The flags of a setting that name new tasks."""
    return [flag for flag in setting.split() if flag.startswith("new_tasks=")]


def difference(a: list[float], b: list[float]) -> str:
    """Mean of a - b with its interval; of a single pair there is none."""
    mean = f"{np.mean(a) - np.mean(b):+.3f}"
    if len(a) < 2:
        return mean
    low, high = paired_t_interval(a, b)
    return f"{mean} ({low:+.3f} to {high:+.3f})"

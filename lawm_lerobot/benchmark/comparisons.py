"""The comparisons of a protocol: the primary ones, and all others with a correction for their number."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from lawm_lerobot.benchmark.cells import Setting, videos_of
from lawm_lerobot.benchmark.configuration import BenchmarkConfig
from lawm_lerobot.benchmark.rows import Row, difference_text, line
from lawm_lerobot.statistics.draws import (
    LEVEL,
    DrawDifference,
    detectable_difference,
    difference_over_draws,
    expected_deviation,
    holm,
    verdict_over_draws,
)


@dataclass(frozen=True)
class Pair:
    """Two arms that are compared, over all tasks and seeds.

    Args:
        regime: The corpus regime.
        demonstrations: The number of labelled episodes.
        videos: The number of unlabelled episodes of those of the two that use any; 0 if neither does.
        arm: The first arm.
        reference: The arm that it is compared with.
        primary: True for a primary comparison, which is not corrected for the number of comparisons.
    """

    regime: str
    demonstrations: int
    videos: int
    arm: str
    reference: str
    primary: bool = False


@dataclass(frozen=True)
class Comparison:
    """The verdict of the draws on two arms.

    Args:
        pair: The two arms.
        difference: Their difference over the draws that both have.
        p: The p value that counts: of a primary comparison its own, of any other the corrected one.
        detectable: The true difference that is found with 80% probability at the level of the test; of the others the
            strictest level of the correction, which is that of the smallest p value.
        verdict: In a word or two.
    """

    pair: Pair
    difference: DrawDifference
    p: float
    detectable: float
    verdict: str


def pairs_of(cfg: BenchmarkConfig) -> list[Pair]:
    """All comparisons, the primary ones first; no two arms are compared twice."""
    pairs: dict[tuple, Pair] = {}
    primary = [(arm, reference) for arm, reference in cfg.primary]
    others = [(arm, reference) for reference, arm in product(cfg.compare_with, cfg.arms) if arm != reference]
    first = (cfg.regimes[0], cfg.demonstrations[0], cfg.videos[0])
    for setting in product(cfg.regimes, cfg.demonstrations, cfg.videos):
        for arm, reference in [*primary, *others]:
            if setting != first and not {arm, reference}.isdisjoint(cfg.controls):
                continue
            regime, demonstrations, videos = setting
            used = max(videos_of(cfg, name, videos) for name in (arm, reference))
            is_primary = setting == first and (arm, reference) in primary
            key = (regime, demonstrations, used, frozenset((arm, reference)))
            pairs.setdefault(key, Pair(regime, demonstrations, used, arm, reference, is_primary))
    return sorted(pairs.values(), key=lambda pair: not pair.primary)


def compare(cfg: BenchmarkConfig, rows: Sequence[Row]) -> list[Comparison]:
    """The comparisons for which both arms have a draw in common."""
    found = [(pair, difference_of(cfg, rows, pair)) for pair in pairs_of(cfg)]
    compared = [(pair, difference) for pair, difference in found if difference is not None]
    others = [difference.p for pair, difference in compared if not pair.primary]
    corrected = iter(holm(others))
    comparisons = []
    for pair, difference in compared:
        p = difference.p if pair.primary else next(corrected)
        level = LEVEL if pair.primary else LEVEL / len(others)
        detectable = detectable_difference(difference.deviation, difference.draws, level)
        verdict = verdict_over_draws(difference.mean, p, detectable, cfg.relevant_difference)
        comparisons.append(Comparison(pair, difference, p, detectable, verdict))
    return comparisons


def difference_of(cfg: BenchmarkConfig, rows: Sequence[Row], pair: Pair) -> DrawDifference | None:
    """The difference over the draws, of a task and a seed each, that both arms have; None if there is none."""
    by_name = {(row.setting, row.arm, row.videos): row for row in rows}
    ours, theirs = [], []
    for task in cfg.tasks:
        setting = Setting(pair.regime, task, pair.demonstrations)
        both = [
            by_name.get((setting, name, videos_of(cfg, name, pair.videos)))
            for name in (pair.arm, pair.reference)
        ]
        for seed in cfg.seeds:
            outcomes = [row.successes.get(seed) for row in both if row is not None]
            if len(outcomes) == 2 and outcomes[0] is not None and outcomes[1] is not None:
                ours.append(outcomes[0])
                theirs.append(outcomes[1])
    return difference_over_draws(ours, theirs) if ours else None


def comparisons_table(cfg: BenchmarkConfig, comparisons: Sequence[Comparison]) -> str:
    """Markdown: a row per comparison, and what the columns mean."""
    draws = len(cfg.tasks) * len(cfg.seeds)
    header = ["", "demonstrations", "videos", "regime", "difference in success (95% over draws)", "p"]
    header += ["would be found (80%)", "draws", "verdict"]
    lines = [line(header), line(["---"] * len(header))]
    for comparison in comparisons:
        pair, found = comparison.pair, comparison.difference
        name = f"`{pair.arm}` - `{pair.reference}`"
        detectable = "nothing" if found.draws == 1 else f"{100 * comparison.detectable:.0f} points"
        cells = [f"**{name}**" if pair.primary else name, str(pair.demonstrations), str(pair.videos)]
        cells += [pair.regime, difference_text(found), _p_text(comparison.p), detectable]
        lines.append(line([*cells, f"{found.draws} of {draws}", f"**{comparison.verdict}**"]))
    note = (
        "A draw is one task with one seed, averaged over its evaluation episodes. Bold pairs are the primary comparisons, "
        "each at its own 5%; the p values of all others are corrected together by Holm's method, their intervals are not. "
        f"Underpowered: no difference is shown, and one of {100 * cfg.relevant_difference:.0f} points might have been missed."
    )
    return "\n".join([*lines, "", note]) + "\n"


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def expected_power(cfg: BenchmarkConfig) -> str:
    """A sentence for each kind of comparison on the differences that a complete run would find."""
    episodes, guess = cfg.evaluation.episodes, cfg.expected
    deviation = expected_deviation(guess.success, episodes, guess.spread)
    draws = len(cfg.tasks) * len(cfg.seeds)
    kinds = {
        primary: [pair for pair in pairs_of(cfg) if pair.primary == primary] for primary in (True, False)
    }
    lines = [
        f"power, guessing {100 * guess.success:.0f}% success in both arms and a spread of {100 * guess.spread:.0f} points "
        f"over draws: {draws} draws of {episodes} episodes"
    ]
    for primary, pairs in kinds.items():
        if pairs:
            level = LEVEL if primary else LEVEL / len(pairs)
            found = detectable_difference(deviation, draws, level)
            amount = f"{100 * found:.0f} points" if draws > 1 else "nothing"
            lines.append(
                f"  {len(pairs)} {'primary' if primary else 'other'} comparisons: {amount} with 80% probability"
            )
    return "\n".join(lines)


def comparisons_json(comparisons: Sequence[Comparison]) -> list[dict]:
    """The comparisons as plain values; what a single draw cannot tell is None."""
    values = []
    for comparison in comparisons:
        single = comparison.difference.draws == 1
        values.append(
            vars(comparison.pair)
            | {
                "difference": comparison.difference.mean,
                "interval": None if single else comparison.difference.interval,
                "p": comparison.p,
                "detectable": None if single else comparison.detectable,
                "draws": comparison.difference.draws,
                "verdict": comparison.verdict,
            }
        )
    return values

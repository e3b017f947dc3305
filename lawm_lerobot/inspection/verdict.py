"""The verdict on a pretraining checkpoint: checks, each one way for latents to fail, and remarks; and `--require`."""

import math
from dataclasses import dataclass
from typing import Any

from draccus.utils import ParsingError

from lawm_lerobot.inspection.metrics import (
    CODED_SHIFT,
    MOVED,
    OWN,
    PLACE_R2,
    SHUFFLED_BATCH,
    SHUFFLED_EPISODE,
    LatentMetrics,
    Metrics,
    ShiftMetrics,
)
from lawm_lerobot.policies.common.health import (
    COLLAPSED_PERPLEXITY,
    COLLAPSED_RANK,
    COLLAPSED_STD,
    IGNORED_RATIO,
)

# Difference between two R2 below which neither is called better.
PROBE_MARGIN = 0.05

HEALTHY = "healthy"
NOT_FINITE = "not finite"
COLLAPSED = "collapsed"
IGNORED = "ignored"
CODES_AUGMENTATION = "codes the augmentation"
#: From best to worst.
VERDICTS = (HEALTHY, IGNORED, COLLAPSED, CODES_AUGMENTATION, NOT_FINITE)


@dataclass(frozen=True)
class Check:
    """The outcome for one way in which latents can fail; None where it cannot be judged. The sentence says why."""

    failed: bool | None
    sentence: str


@dataclass(frozen=True)
class Findings:
    """Everything that the report says in words and numbers; the verdict is the check that decides, or `HEALTHY`."""

    verdict: str
    checks: dict[str, Check]
    remarks: list[str]
    metrics: Metrics


def judge(metrics: Metrics) -> Findings:
    """Say what the metrics mean."""
    checks = {
        NOT_FINITE: _check_finite(metrics),
        COLLAPSED: _check_collapsed(metrics.latents),
        CODES_AUGMENTATION: _check_augmentation(metrics.augmentation),
        IGNORED: _check_ignored(metrics.error_ratio[SHUFFLED_BATCH]),
    }
    # A code for the shift may well be (nearly) constant on frames that are not shifted, and so look collapsed or
    # ignored; and another clip's constant is the same constant.
    order = (NOT_FINITE, CODES_AUGMENTATION, COLLAPSED, IGNORED)
    verdict = next((name for name in order if checks[name].failed), HEALTHY)
    return Findings(verdict, checks, _remarks(metrics), metrics)


def _check_finite(metrics: Metrics) -> Check:
    broken = [f"the {name} of {n} of {metrics.clips} clips" for name, n in metrics.not_finite.items() if n]
    if not broken:
        found = f"0 of {metrics.clips} clips have a number that is not (not finite above 0)"
        return Check(False, f"Latents, imagination and the policy's plan are finite: {found}.")
    return Check(
        True,
        f"Not every number is finite: {', '.join(broken)} (not finite above 0). The weights are broken, or observation.state of the dataset "
        "is not finite there: go back to a checkpoint (--policy.path) from before the loss in the log stopped being a "
        "number, and pretrain on with a lower learning rate.",
    )


def _check_collapsed(latents: LatentMetrics) -> Check:
    std, rank, dim = latents.std, latents.effective_rank, latents.dim
    if not math.isfinite(std + rank):
        return Check(True, "Whether the latents vary cannot be judged: they are not finite.")
    failed = std < COLLAPSED_STD or (dim > 1 and rank < COLLAPSED_RANK)
    found = f"standard deviation {std:.2f} (collapsed below {COLLAPSED_STD})"
    if dim > 1:
        found += f", effective rank {rank:.2f} of {dim} (collapsed below {COLLAPSED_RANK})"
    if latents.codes is not None:
        perplexity, used = latents.codes["code_perplexity"], latents.codes["codes_used"]
        found += f", {perplexity:.2f} codes a place on average (collapsed below {COLLAPSED_PERPLEXITY}; {used:.0%} of all occur)"
        if not failed and perplexity < COLLAPSED_PERPLEXITY:
            return Check(
                True,
                f"The codes of the latents have collapsed: {found}. Pretrain with --policy.latent_action.quantizer=fsq, which "
                "has no codebook, or none.",
            )
    if not failed:
        return Check(False, f"The latents vary: {found}.")
    what = "a constant" if std < COLLAPSED_STD else "a line"
    return Check(
        True,
        f"The latents have collapsed to (nearly) {what}: {found}. Pretrain with "
        "--policy.latent_action.source=inverse_dynamics, or with frames further apart "
        "(--policy.latent_action.stride).",
    )


def _check_augmentation(augmentation: ShiftMetrics) -> Check:
    share = augmentation.coded_shift
    if augmentation.total_std < COLLAPSED_STD or share is None:
        why = "a shift changes no pixel" if share is None else "they do not vary"
        return Check(None, f"Whether the latents code the augmentation cannot be judged: {why}.")
    if not math.isfinite(augmentation.total_std + share):
        return Check(
            None, "Whether the latents code the augmentation cannot be judged: not every number is finite."
        )
    found = (
        f"of a shift of their input, which changes nothing that happens in a clip, {share:.0%} turns up in what is "
        f"imagined from an x_0 that is not shifted (codes the augmentation above {CODED_SHIFT:.0%})"
    )
    if share > CODED_SHIFT:
        return Check(
            True,
            f"The latents code the augmentation, where things are and not how they move: {found}. Pretrain with "
            "--policy.idm.random_shift, which only the inverse dynamics sees, and without "
            "--dataset.image_transforms, which the world model sees too.",
        )
    return Check(False, f"The latents do not code the augmentation: {found}.")


def _check_ignored(ratio: float | None) -> Check:
    if ratio is None:
        return Check(
            None,
            "Whether the world model uses the latents cannot be judged: no pixel of these clips differs from x_0 by "
            f"more than {MOVED}.",
        )
    if not math.isfinite(ratio):
        return Check(
            True, "Whether the world model uses the latents cannot be judged: its error is not finite."
        )
    found = (
        f"with another clip's latents its error on moving pixels is {ratio:.2f} times that with the clip's own "
        f"(ignored below {IGNORED_RATIO})"
    )
    if ratio < IGNORED_RATIO:
        return Check(
            True,
            f"The world model ignores the latents: {found}. Pretrain for longer, or with frames further apart "
            "(--policy.latent_action.stride).",
        )
    return Check(False, f"The world model uses the latents: {found}.")


def _remarks(metrics: Metrics) -> list[str]:
    remarks = []
    own = metrics.explained_variance[OWN].all
    if own is not None and math.isfinite(own):
        better = "better than" if own > 0 else "no better than"
        remarks.append(
            f"The world model imagines moving pixels {better} copying x_0 would: explained variance {own:.2f}."
        )
    within, over_batch = metrics.error_ratio[SHUFFLED_EPISODE], metrics.error_ratio[SHUFFLED_BATCH]
    if within is not None and over_batch is not None and within < IGNORED_RATIO <= over_batch:
        remarks.append(
            "The latents tell which episode it is, but not what happens when: those of another moment of the same "
            f"episode do as well (error {within:.2f} times that with the clip's own)."
        )
    place = metrics.latents.place_r2
    if place is not None and place > PLACE_R2:
        remarks.append(
            f"The latents tell their own place in the clip: k alone explains {place:.0%} of their variance (worth a "
            f"remark above {PLACE_R2:.0%})."
        )
    if metrics.plan_r2 is not None and math.isfinite(metrics.plan_r2):
        remarks.append(
            f"The policy foresees the latents from x_0 alone with R2 {metrics.plan_r2:.2f} (0: it knows their "
            "mean only)."
        )
    if "skipped" in metrics.probe:
        return [*remarks, metrics.probe["skipped"]]
    episodes = metrics.probe["episodes"]
    for target, kinds in metrics.probe["targets"].items():
        found = [_probe_remark(target.replace("_", " "), scores, episodes) for scores in kinds.values()]
        remarks += [remark for remark in found if remark is not None]
    return remarks


def _probe_remark(target: str, scores: dict[str, dict[str, Any]], episodes: int) -> str | None:
    """Compare what the first of the scores tells of a target with the best of the others; None if one is missing."""
    (name, ours), *baselines = scores.items()
    known = {baseline: score["r2"] for baseline, score in baselines if score["r2"] is not None}
    if ours["r2"] is None or not known:
        return None
    best = max(known, key=lambda baseline: known[baseline])
    lead, (low, high) = ours["r2"] - known[best], ours["r2_interval"]
    if abs(lead) < PROBE_MARGIN:
        how = "tell about as much as"
    elif low <= known[best] <= high:
        how = f"are not shown by {episodes} episodes to tell more or less than"
    else:
        how = "tell more than" if lead > 0 else "tell less than"
    return (
        f"About the true {target}, {name} {how} the best baseline ({best}): held-out R2 {ours['r2']:.2f} "
        f"(95% {low:.2f} to {high:.2f}) against {known[best]:.2f}."
    )


def require_verdict(found: str, wanted: str | None, order: tuple[str, ...]) -> None:
    """Raise ValueError if a verdict is worse than the wanted one; the order is from best to worst."""
    if wanted is not None and order.index(found) > order.index(wanted):
        raise ValueError(
            f"The verdict is {found.replace(' ', '_')}, expected {wanted.replace(' ', '_')} or better, as --require asks "
            "for; the report says why."
        )


def known_verdict(name: str | None, order: tuple[str, ...]) -> str | None:
    """Find the verdict that ``--require`` names, with underscores or spaces; ParsingError if there is none."""
    for verdict in order:
        if name is not None and verdict.replace("_", " ") == name.replace("_", " "):
            return verdict
    if name is None:
        return None
    raise ParsingError(
        f"require is {name!r}, expected one of {', '.join(v.replace(' ', '_') for v in order)} for this kind of "
        "report: change --require."
    )

"""Cost of larger pretraining: measured scaling from a speed report, and estimates on paper from it.

python -m tools.speed.scale_estimates            # prints the tables
python -m tools.speed.scale_estimates --write    # puts them into docs/scale.md
python -m tools.speed.scale_estimates --count    # counts STEPS anew, with 4 GB of memory
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tools.speed.table import machine_line, markdown

ROOT = Path(__file__).resolve().parents[2]
REPORT, PAGE = ROOT / "docs" / "results" / "speed.json", ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- tools/speed/scale_estimates.py -->", "<!-- end of tools/speed/scale_estimates.py -->"
IMPORTED, ONE_WORKER = "imported 128x128", "1"  # of the section `loading`


class Step(NamedTuple):
    """A pretraining step.

    Args:
        flops: The operations of one clip, forward and backward, multiplications and additions.
        trained: The number of parameters with a gradient.
    """

    flops: float
    trained: int


#: By --count, with torch.utils.flop_counter: one camera of 128 px, 16 tokens of text, all else by default.
STEPS = {"lawm_act": Step(7.898e9, 54_455_956), "lawm_smolvla": Step(234.2e9, 102_784_812)}


class Video(NamedTuple):
    """A collection of videos.

    Args:
        hours: The length of all videos together.
        fps: Frames per second.
        source_gb: Their size as they are handed out, in GB.
        kind: The kind of video of `bench_import` whose processor time per frame is taken.
        pixels: The pixels of a frame over those of that kind; time is assumed to grow with them.
    """

    hours: float
    fps: float
    source_gb: str
    kind: str
    pixels: float = 1


#: By the datasets' pages: 220,847 videos, 12 fps, 240 px high, 19 GB; and 3,700 h. Assumed: 4 s for a video of the former;
#: 7 TB, 1920x1080 at full scale, 960x540 downscaled, and 30 fps for the latter.
SSV2, EGO4D = "Something-Something v2", "Ego4D"
VIDEOS = {
    SSV2: Video(220_847 * 4 / 3600, 12, "19", "short_webm"),
    f"{EGO4D}, downscaled": Video(3700, 30, "?", "camera_480p", 960 * 540 / (640 * 480)),
    f"{EGO4D}, full scale": Video(3700, 30, "7,000", "phone_720p", 1920 * 1080 / (1280 * 720)),
}
#: The importer's default rate, its size on disk by `EncoderOptions`' table (a synthetic scene of 128 px), and the time
#: that the default clip covers: 9 frames, 4 apart.
IMPORT_FPS, KB_PER_S, CLIP_S = 10, 25, (8 * 4 + 1) / 10
#: Clips to train on; a pass begins one at every frame.
JOBS = {
    "50,000 steps of 256 clips": 50_000 * 256,
    f"a pass over {SSV2}": VIDEOS[SSV2].hours * 3600 * IMPORT_FPS,
    f"a pass over {EGO4D}": 3700 * 3600 * IMPORT_FPS,
}


class Machine(NamedTuple):
    """A machine, or several that train together.

    Args:
        gpus: The number of GPUs.
        gpu: Their name, as in `GPUS`.
        cores: The number of processor cores.
        dollars_per_h: The price of an hour.
    """

    gpus: int
    gpu: str
    cores: int
    dollars_per_h: float


#: Peak TFLOP/s, dense bf16, assumed from NVIDIA's data sheets: 24 GB, float32 accumulation; and 80 GB, SXM.
GPUS = {"RTX 4090": 165, "H100": 989}
#: Cores and prices are assumed.
MACHINES = {
    "1 x RTX 4090": Machine(1, "RTX 4090", 16, 0.5),
    "8 x H100": Machine(8, "H100", 192, 24),
    "Slurm, 4 x 8 x H100": Machine(32, "H100", 4 * 192, 4 * 24),
}
UTILISATION = 0.3  # of the peak, assumed; small networks reach less
BATCH = 32  # of each process, assumed where gradients are exchanged
NODE_CORES, NODES = 32, (1, 4, 16)  # for the import, assumed


def read(path: Path) -> dict[str, Any]:
    """The speed report.

    Raises:
        SystemExit: If it is missing, lacks a section, or was only a quick look.
    """
    bench = "python -m tools.speed"
    if not path.exists():
        raise SystemExit(f"There is no {path.name}: `{bench}` measures it.")
    report = json.loads(path.read_text())
    missing = ",".join(name for name in ("loading", "import", "scaling") if name not in report["sections"])
    if missing:
        raise SystemExit(f"{path.name} has no section {missing}: `{bench} --only={missing}`.")
    if report["quick"]:
        raise SystemExit(f"{path.name} is a quick look, which has too few runs: measure it without --quick.")
    return report


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def measured(report: dict[str, Any]) -> str:
    """The part of the page with measurements, as markdown."""
    scaling, loading = report["sections"]["scaling"], report["sections"]["loading"]
    alone, *torchrun = scaling["processes"]
    grown: list[dict[str, Any]] = []
    for run in (run for name in ("workers", "batch") for run in scaling[name]):
        if run not in (alone, *grown):  # what both begin with was run once
            grown.append(run)
    runs = [("-", alone), *(("-", run) for run in grown), *((str(run["processes"]), run) for run in torchrun)]
    keys = ("workers", "batch", "samples_per_s", "data_s", "update_s")
    speed = [
        ["torchrun processes", "workers of each", "batch of each", "samples/s", "waits, s", "computes, s"]
    ]
    speed += [[processes, *(str(run[key]) for key in keys)] for processes, run in runs]
    clips = loading["clips_per_s"]
    reading = [["dataset", *(f"workers: {count}" for count in clips[IMPORTED])]]
    reading += [[name, *(number(rate["median"]) for rate in by.values())] for name, by in clips.items()]
    return f"""### Measured

{machine_line(report)}. Runs by torchrun are on the processor.

`lerobot-train --policy.type=lawm_act`: samples a second of all processes together, one thread in each, and how long a step
waits for its batch and computes.

{markdown(speed)}
Clips a second that are read, with {loading["video_backend"]}. A step whose batch is there takes
{number(loading["step_clips_per_s"]["median"])} clips a second.

{markdown(reading)}"""


def on_paper(report: dict[str, Any]) -> str:
    """The part of the page with estimates, as markdown."""
    per_core = report["sections"]["loading"]["clips_per_s"][IMPORTED][ONE_WORKER]["median"]
    kinds = report["sections"]["import"]["kinds"]
    machines = [["machine", "peak of a GPU, TFLOP/s", "processor cores", "$ an hour"]]
    for name, found in MACHINES.items():
        machines.append([name, str(GPUS[found.gpu]), str(found.cores), f"{found.dollars_per_h:g}"])
    steps = [["policy", "GFLOP a clip", "trained parameters"]]
    gpu_hours = [["policy", "GPU", *JOBS]]
    head = ["GPU clips/s", "cores for them", "decoded clips/s", "limit", "disk, MB/s", "network, GB/s"]
    limits, hours = [["policy", "machine", *head]], [["policy", "machine", *JOBS]]
    for policy, (flops, trained) in STEPS.items():
        steps.append([policy, number(flops / 1e9), f"{trained:,}"])
        speed = {gpu: peak * 1e12 * UTILISATION / flops for gpu, peak in GPUS.items()}  # clips/s
        for gpu, rate in speed.items():
            gpu_hours.append([policy, gpu, *(number(clips / rate / 3600) for clips in JOBS.values())])
        for name, found in MACHINES.items():
            computed, decoded = found.gpus * speed[found.gpu], found.cores * per_core
            rate, limit = min((computed, "compute"), (decoded, "decoding"))
            row = [number(value) for value in (computed, computed / per_core, decoded)]
            disk = rate * CLIP_S * KB_PER_S / 1000
            # A ring sends 2 (n - 1) / n of the gradients, float32, from each of n processes.
            network = 2 * (1 - 1 / found.gpus) * trained * 4e-9 * rate / found.gpus / BATCH
            limits.append([policy, name, *row, limit, number(disk), number(network)])
            times = [clips / rate / 3600 for clips in JOBS.values()]
            hours.append(
                [policy, name, *(f"{number(h)} h, ${number(h * found.dollars_per_h)}" for h in times)]
            )
    nodes = [f"{count} x {NODE_CORES} cores" for count in NODES]
    imports = [["videos", "hours", "source, GB", "core-hours", *nodes, "result, GB"]]
    for name, video in VIDEOS.items():
        per_frame = kinds[video.kind]["import_cpu_s"] / kinds[video.kind]["source_frames"] * video.pixels
        cost = video.hours * video.fps * per_frame  # core-hours
        times = [f"{number(cost / NODE_CORES / count)} h" for count in NODES]
        size = number(video.hours * 3600 * KB_PER_S / 1e6)
        imports.append([name, number(video.hours), video.source_gb, number(cost), *times, size])
    return f"""### On paper

Nothing below was run. Assumed machines, at assumed prices:

{markdown(machines)}
Operations of a pretraining step, counted:

{markdown(steps)}
GPU hours at an assumed {UTILISATION:.0%} of the peak. Small networks do not reach it: a lower limit, for `lawm_act` a distant one.

{markdown(gpu_hours)}
What limits, assumed that GPUs and cores share the work without loss, and that every core decodes {number(per_core)} clips a
second, as one worker above. Disk: {KB_PER_S} kB for a second of video, {CLIP_S:g} s of it for a clip, nothing cached. Network: gradients that
each process sends if a step of it has {BATCH} clips; GPUs of one machine have links of their own for it.

{markdown(limits)}
Hours and assumed cost at that limit, so at least:

{markdown(hours)}
Import at {IMPORT_FPS} fps and 128 px, at the processor time for a source frame of `bench_import`'s synthetic videos. While it
runs, the result is on the disk twice.

{markdown(imports)}"""


def count() -> None:
    """Print the operations and parameters for `STEPS`."""
    from torch.utils.flop_counter import FlopCounterMode

    from tools.speed.policies import Run, build, random_batch

    for name in STEPS:
        run = Run(name.removeprefix("lawm_"), batch=1)
        with tempfile.TemporaryDirectory() as folder:
            policy = build(run, True, "cpu", Path(folder)).train()
        batch = random_batch(policy.config, run, "cpu")
        policy.forward(batch)  # the first also measures the latents' health
        with FlopCounterMode(display=False) as counter:
            policy.forward(batch)[0].backward()
        trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
        print(f"{name}: {counter.get_total_flops():.4g} operations a clip, {trained:,} trained parameters")


def write(block: str, page: Path) -> None:
    """Put the tables between the page's two marks.

    Raises:
        SystemExit: If the page lacks them.
    """
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{page.name} must have the marks {BEGIN} and {END} once each.")
    marked = f"{BEGIN}\n\n{block}\n{END}"
    page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: marked, text, flags=re.DOTALL))


def main(arguments: list[str] | None = None) -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", type=Path, default=REPORT, help="as tools.speed writes it")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--write", action="store_true", help="into the page, between its two marks")
    parser.add_argument("--count", action="store_true", help="the operations of STEPS, instead of the tables")
    given = parser.parse_args(arguments)
    if given.count:
        return count()
    report = read(given.report)
    block = f"{measured(report)}\n{on_paper(report)}"
    return write(block, given.page) if given.write else print(block)


if __name__ == "__main__":
    main()

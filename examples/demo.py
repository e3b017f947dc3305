"""The whole main job, small: pretrain on video without actions, finetune, evaluate, export.

    make demo        # or: python examples/demo.py --output_dir=outputs/demo

Every step is one of the commands a user would type, printed before it runs; the full output of each is in
``<output_dir>/logs``. Interrupted and started again, it goes on where it was; steps that are done are skipped.
It ends with one table and one picture.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import draccus
from tqdm import tqdm

from lawm_lerobot.statistics.intervals import SuccessRate, verdict

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
MAKE_DATASET = "examples/make_metaworld_dataset.py"
WIDTH = 100  # characters of a command that are shown

# Chosen so that everything fits into a quarter of an hour on two CPU cores, not to be the best one can do.
SIZE = 64
CORPUS_TASKS = "reach-v3,push-v3,drawer-open-v3,door-open-v3,window-open-v3"
TASK = "button-press-topdown-v3"
POLICY = [
    "--policy.device=cpu",
    "--policy.push_to_hub=false",
    "--policy.pretrained_backbone_weights=null",
    "--policy.dim_model=128",
    "--policy.n_heads=4",
    "--policy.dim_feedforward=256",
    "--policy.n_encoder_layers=2",
    "--policy.use_vae=false",
]
STRIDE = "--policy.latent_action.stride=4"  # 0.05 s: Meta-World's tasks are over after one second
FINETUNING = [
    "--policy.stage=finetune",
    "--policy.chunk_size=16",
    "--policy.n_action_steps=8",
    "--policy.optimizer_lr=2e-4",
    "--policy.optimizer_lr_backbone=2e-4",
]


@dataclass
class DemoConfig:
    """Flags of the demo.

    Args:
        output_dir: Folder of everything the demo writes.
        corpus_episodes: Number of unlabelled episodes of each corpus task.
        demonstrations: Number of labelled episodes of the held-out task to finetune on.
        held_out: Number of further ones, for the held-out imitation loss.
        pretraining_steps: Number of training steps of pretraining.
        finetuning_steps: Number of training steps of finetuning.
        eval_episodes: Number of evaluation episodes of each policy.
        seed: Seed of every training.
        variation: Share, 0 to 1, of what differs from one episode to the next: things on the table, camera, light.
        camera_zoom: Factor, 1 to 10, by which things appear larger in the pictures.
    """

    output_dir: Path = Path("outputs/demo")
    corpus_episodes: int = 12
    demonstrations: int = 10
    held_out: int = 5
    pretraining_steps: int = 400
    finetuning_steps: int = 400
    eval_episodes: int = 40
    seed: int = 1
    variation: float = 0.0
    camera_zoom: float = 1.0

    def pictures(self, prefix: str) -> list[str]:
        """Flags that make recordings and evaluations look alike."""
        return [f"{prefix}variation={self.variation}", f"{prefix}camera_zoom={self.camera_zoom}"]


@dataclass
class Command:
    """One command of the demo.

    Args:
        name: The name under which the demo reports on it.
        argv: The command line.
        done: A path that exists when, and only when, the command has finished; made here if the command does not.
        claims: The output folder, if the command refuses to write over an unfinished one.
        resume: The command line to run instead when ``claims`` holds a checkpoint.
        threads: The number of threads it may use.
    """

    name: str
    argv: list[str]
    done: Path
    claims: Path | None = None
    resume: list[str] | None = None
    threads: int = 2

    def prepared(self) -> list[str]:
        """The command line to run now: the first one, or the one that goes on from a checkpoint."""
        if self.claims is not None and self.claims.exists():
            if self.resume is not None and (self.claims / "checkpoints" / "last").exists():
                return self.resume
            shutil.rmtree(self.claims)
        return self.argv


@dataclass
class Running:
    """A command that is under way.

    Args:
        command: The command.
        process: Its process.
        reader: The thread that follows its output.
    """

    command: Command
    process: subprocess.Popen
    reader: threading.Thread


class Demo:
    """The commands, their progress and their result."""

    def __init__(self, cfg: DemoConfig) -> None:
        self.cfg = cfg
        self.logs = cfg.output_dir / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    # --- the commands ---------------------------------------------------------------------------------

    def record(self, name: str, tasks: str, episodes: int, seed: int, *flags: str) -> Command:
        root = self.cfg.output_dir / "data" / name
        argv = ["python", MAKE_DATASET, f"--tasks={tasks}", f"--episodes={episodes}", f"--size={SIZE}"]
        argv += [f"--repo_id=demo/{name}", f"--root={root}", f"--seed={seed}", "--workers=1"]
        argv += [*self.cfg.pictures("--"), *flags]
        return Command(f"record {name}", argv, done=root)

    def train(self, name: str, dataset: str, steps: int, threads: int, *flags: str) -> Command:
        out = self.cfg.output_dir / "train" / name
        argv = ["lerobot-train", *flags, f"--dataset.repo_id=demo/{dataset}"]
        argv += [f"--dataset.root={self.cfg.output_dir / 'data' / dataset}"]
        argv += [f"--output_dir={out}", f"--steps={steps}", f"--save_freq={max(steps // 3, 1)}"]
        argv += ["--log_freq=50", "--batch_size=8", "--num_workers=0", f"--seed={self.cfg.seed}"]
        last = out / "checkpoints" / "last" / "pretrained_model"
        resume = ["lerobot-train", f"--config_path={last / 'train_config.json'}", "--resume=true"]
        return Command(
            f"train {name}", argv, done=out / "finished", claims=out, resume=resume, threads=threads
        )

    def checkpoint(self, name: str) -> Path:
        return self.cfg.output_dir / "train" / name / "checkpoints" / "last" / "pretrained_model"

    def evaluate(self, name: str, checkpoint: Path, threads: int) -> Command:
        out = self.cfg.output_dir / "eval" / name
        argv = ["lerobot-eval", f"--policy.path={checkpoint}", "--policy.device=cpu"]
        argv += ["--env.type=lawm_metaworld", f"--env.task={TASK}", f"--env.size={SIZE}"]
        argv += [*self.cfg.pictures("--env."), "--env.episode_length=120"]
        argv += [f"--eval.n_episodes={self.cfg.eval_episodes}"]
        argv += ["--eval.batch_size=10", "--eval.use_async_envs=false", f"--output_dir={out}"]
        return Command(f"evaluate {name}", argv, done=out / "eval_info.json", threads=threads)

    def run_all(self) -> None:
        cfg = self.cfg
        labelled = cfg.demonstrations + cfg.held_out
        held_out = [f"--dataset.eval_split={cfg.held_out / labelled:.4f}"]
        held_out += [f"--eval_steps={max(cfg.finetuning_steps // 5, 1)}"]

        unlabelled = ["--with_actions=false", "--noise=0.2"]
        self.run(
            self.record("corpus", CORPUS_TASKS, cfg.corpus_episodes, 20000, *unlabelled),
            self.record("demonstrations", TASK, labelled, 10000),
        )
        pretraining = ["--policy.type=lawm_act", *POLICY, "--policy.stage=pretrain", STRIDE]
        self.run(self.train("pretrained", "corpus", cfg.pretraining_steps, 2, *pretraining))
        from_pretrained = [f"--policy.path={self.checkpoint('pretrained')}", *FINETUNING, *held_out]
        from_scratch = ["--policy.type=lawm_act", *POLICY, *FINETUNING, *held_out]
        self.run(
            self.train("lawm", "demonstrations", cfg.finetuning_steps, 1, *from_pretrained),
            self.train("scratch", "demonstrations", cfg.finetuning_steps, 1, *from_scratch),
        )
        exported = cfg.output_dir / "exported_act"
        export = ["lawm-export", f"--policy.path={self.checkpoint('lawm')}", f"--output_dir={exported}"]
        self.run(
            Command("export lawm", export, done=exported, threads=1),
            self.evaluate("scratch", self.checkpoint("scratch"), 1),
        )
        self.run(self.evaluate("lawm", self.checkpoint("lawm"), 1), self.evaluate("exported", exported, 1))

    # --- running them ---------------------------------------------------------------------------------

    def run(self, *commands: Command) -> None:
        """Run commands at the same time, each with a progress bar; stop the demo if one fails."""
        todo = [command for command in commands if not command.done.exists()]
        for command in commands:
            if command not in todo:
                print(f"# {command.name}: done already ({command.done})")
        runs = [self.start(command, position) for position, command in enumerate(todo)]
        failed = []
        try:
            for running in runs:
                running.process.wait()
                running.reader.join()
                if running.process.returncode != 0:
                    failed.append(running.command)
                elif not running.command.done.exists():
                    running.command.done.touch()
        except BaseException:
            for running in runs:
                running.process.terminate()
            for running in runs:
                running.process.wait()
            raise
        for command in failed:
            log = self.log_of(command.name)
            tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-15:])
            print(f"\n{tail}\n{command.name} failed; its whole output is in {log}", file=sys.stderr)
        if failed:
            sys.exit(1)

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name.replace(' ', '_')}.log"

    def start(self, command: Command, position: int) -> Running:
        """Start a command whose progress bar is in line ``position``."""
        argv = command.prepared()
        log, line = self.log_of(command.name), f"$ {shlex.join(argv)}"
        # Appended: after an interruption, what ran before belongs to the record.
        with log.open("a", encoding="utf-8") as record:
            record.write(f"{line}\n")
        # The flags would fill the screen.
        print(line if len(line) <= WIDTH else f"{line[:WIDTH]}... (the whole command: {log})", flush=True)
        # PASSIVE: on a busy machine, threads that spin while they wait for each other cost far more than they save.
        environment = os.environ | {"OMP_NUM_THREADS": str(command.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        # LeRobot's commands live beside this interpreter, which need not be on the user's PATH.
        program = [str(sys.executable)] if argv[0] == "python" else [str(BIN / argv[0])]
        process = subprocess.Popen(
            [*program, *argv[1:]],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        reader = threading.Thread(target=self.follow, args=(command, process, position), daemon=True)
        reader.start()
        return Running(command, process, reader)

    def follow(self, command: Command, process: subprocess.Popen, position: int) -> None:
        """Copy a command's output to its log, and the progress that its own tqdm bar reports to ours."""
        assert process.stdout is not None
        counter = re.compile(rb"\s(\d+)/(\d+) \[")
        with (
            self.log_of(command.name).open("ab") as log,
            tqdm(desc=command.name, position=position, mininterval=0.5 if sys.stderr.isatty() else 15) as bar,
        ):
            while chunk := os.read(process.stdout.fileno(), 65536):
                log.write(chunk)
                log.flush()
                found = counter.findall(chunk)
                if found and int(found[-1][1]) > 1:
                    bar.total = int(found[-1][1])
                    bar.update(int(found[-1][0]) - bar.n)

    # --- the result -----------------------------------------------------------------------------------

    def successes(self, name: str) -> SuccessRate:
        info = json.loads((self.cfg.output_dir / "eval" / name / "eval_info.json").read_text())
        outcomes = info["per_task"][0]["metrics"]["successes"]
        return SuccessRate(sum(bool(s) for s in outcomes), len(outcomes))

    def held_out_loss(self, name: str) -> float:
        """The last held-out imitation loss that lerobot-train logged."""
        log = self.log_of(f"train {name}").read_text(errors="replace")
        return float(re.findall(r"eval_loss=([0-9.eE+-]+)", log)[-1])

    def report(self) -> str:
        rates = {name: self.successes(name) for name in ("scratch", "lawm", "exported")}
        losses = {name: self.held_out_loss(name) for name in ("scratch", "lawm")}
        health, latent_dim, picture = self.imagine()
        table = f"{self.policy_table(rates, losses)}\n{health_table(health, latent_dim)}"
        (self.cfg.output_dir / "table.md").write_text(table)
        results = {
            "success": {k: [v.successes, v.episodes, *v.interval()] for k, v in rates.items()},
            "held_out_loss": losses,
            "latent_health": health,
            "config": draccus.encode(self.cfg),
        }
        (self.cfg.output_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        return f"{table}\nPicture: {picture}\n"

    def imagine(self) -> tuple[dict[str, float], int, Path]:
        """Metrics of the latents, the latents' dimension, and a picture of the world model's imagination.

        All are of the held-out task's video: neither its frames nor its task were pretrained on.
        """
        # Imports LeRobot, which takes longer than a demo that has nothing left to do.
        from lawm_lerobot.policies.common.imagination import latent_health, save_imagination_strip
        from lawm_lerobot.policies.common.pretraining_checkpoint import (
            load_pretraining_checkpoint,
            pretraining_batches,
        )

        policy, preprocessor = load_pretraining_checkpoint(self.checkpoint("pretrained"))
        root = self.cfg.output_dir / "data" / "demonstrations"
        batches = list(pretraining_batches(policy, preprocessor, "demo/demonstrations", root, clips=128))
        health = latent_health(policy, batches)
        picture = save_imagination_strip(policy, batches[0], self.cfg.output_dir / "imagination.png", rows=3)
        return health, policy.config.latent_action.dim, picture

    def policy_table(self, rates: dict[str, SuccessRate], losses: dict[str, float]) -> str:
        cfg = self.cfg
        rows = [
            ("ACT from scratch", str(rates["scratch"]), f"{losses['scratch']:.3f}"),
            ("ACT after LAWM pretraining", str(rates["lawm"]), f"{losses['lawm']:.3f}"),
            ("the latter, exported as plain `act`", str(rates["exported"]), "same weights"),
        ]
        lines = [
            f"Held-out task {TASK}, {cfg.demonstrations} demonstrations, {cfg.finetuning_steps} finetuning steps, "
            f"{cfg.pretraining_steps} pretraining steps on {cfg.corpus_episodes} action-free episodes of each of "
            f"{CORPUS_TASKS.replace(',', ', ')}; one training seed.",
            "",
            "| policy | success (Wilson 95%) | held-out imitation loss |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            verdict(rates["lawm"], rates["scratch"], "ACT after LAWM pretraining", "ACT from scratch")
            + " The interval counts evaluation episodes, not training seeds.",
        ]
        return "\n".join(lines) + "\n"


def health_table(health: dict[str, float], latent_dim: int) -> str:
    lines = [
        "| latent health, on video of the held-out task | | healthy |",
        "|---|---|---|",
        f"| standard deviation of the latents | {health['latent_std']:.2f} | near 1 |",
        f"| effective rank, of {latent_dim} | {health['latent_rank']:.1f} | above 1 |",
        f"| open-loop error / copying x_0 | {health['mse_over_copy']:.2f} | below 1 |",
        f"| error with another clip's latents / its own | {health['shuffle_ratio']:.2f} | above 1 |",
    ]
    return "\n".join(lines) + "\n"


@draccus.wrap()
def main(cfg: DemoConfig) -> None:
    start = time.monotonic()
    # Commands run in the repository; a relative directory means the same to them and to us.
    os.chdir(REPOSITORY)
    demo = Demo(cfg)
    demo.run_all()
    print(f"\n{demo.report()}")
    print(f"{(time.monotonic() - start) / 60:.1f} minutes; all of it is in {cfg.output_dir}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; `make demo` goes on from here.")

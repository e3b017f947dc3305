"""Round trips of checkpoints and datasets over a small Hub on this machine, and what happens when it fails.

`huggingface_hub` reads its settings when it is imported, so the commands run in one process of their own, with
HF_ENDPOINT set from its start; the Hub and the assertions are in this one.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import re
import shlex
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from helpers.hub_server import DROP, DROP_HALFWAY, HubServer
from huggingface_hub import DatasetCard, ModelCard

# --- in the commands' process -----------------------------------------------------------------------------


@dataclass
class Outcome:
    """The end of a command: its log, its error, its result."""

    log: str
    error: str | None = None
    value: Any = None


def _start(folder: Path) -> None:
    """In a folder of its own; and the client, which waits longer from one attempt to the next, does not wait."""
    os.chdir(folder)
    from huggingface_hub.utils import _http

    _http.time = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})


def _outcome(function: Callable[..., Any], *arguments: Any) -> Outcome:
    log = io.StringIO()
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            value, error = function(*arguments), None
        except SystemExit as stop:
            value, error = None, str(stop.code) if stop.code else None
        except Exception as raised:
            traceback.print_exc()
            value, error = None, "".join(traceback.format_exception_only(raised)).strip()
    return Outcome(log.getvalue(), error, value)


def _train(*flags: str) -> str:
    from helpers.training import run_command
    from lerobot.scripts.lerobot_train import main

    log = run_command(main, *flags)
    print(log)
    return log


def _export(*flags: str) -> None:
    from helpers.training import run_command

    from lawm_lerobot.scripts.lawm_export import main

    print(run_command(main, *flags))


def _import_videos(*flags: str) -> None:
    from lawm_lerobot.scripts.lawm_import_videos import main

    status = main(flags)
    if status:
        raise SystemExit(status)


def _load(repo_id: str, revision: str | None, allow_pretraining: bool) -> dict[str, float]:
    """Sums of the tensors."""
    from lawm_lerobot.policies.act.modeling_lawm_act import LawmActPolicy

    policy = LawmActPolicy.from_pretrained(repo_id, revision=revision, allow_pretraining=allow_pretraining)
    return {name: float(tensor.double().sum()) for name, tensor in policy.state_dict().items()}


def _run_python(code: str) -> str:
    """Run a card's Python, and say what ``policy`` is then."""
    variables: dict[str, Any] = {}
    exec(code, variables)
    return type(variables["policy"]).__name__


def _make_demonstrations(root: Path) -> None:
    from helpers.datasets_on_the_spot import make_dataset

    make_dataset(root, lengths=(8, 8), action_dim=3)


def _make_video(folder: Path) -> None:
    from helpers.video_fixtures import write_video

    for name in ("open/a", "open/b"):
        write_video(folder / f"{name}.mp4", 45, 30)


# --- here -------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A Hub, the process of the commands, and all that they said."""

    hub: HubServer
    pool: ProcessPoolExecutor
    folder: Path
    logs: list[str] = field(default_factory=list)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Outcome:
        outcome = self.pool.submit(_outcome, function, *arguments).result()
        self.logs.append(outcome.log)
        return outcome

    def must(self, function: Callable[..., Any], *arguments: Any) -> Outcome:
        outcome = self.run(function, *arguments)
        assert outcome.error is None, outcome.log[-3000:]
        return outcome


TRAINING = ("--batch_size=4", "--num_workers=0", "--log_freq=1", "--steps=2", "--policy.push_to_hub=true")
TINY = (
    "--policy.dim_model=32",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=64",
    "--policy.n_encoder_layers=1",
    "--policy.n_vae_encoder_layers=1",
    "--policy.pretrained_backbone_weights=null",
    "--policy.device=cpu",
    "--policy.latent_action.horizon=4",
    "--policy.latent_action.stride=2",
    "--policy.world_model.size=test",
    "--policy.world_model.image_size=32",
    "--policy.idm.size=test",
)


def publish(world: World, run: str, repo_id: str, *flags: str) -> Outcome:
    where = (f"--policy.repo_id={repo_id}", f"--output_dir={world.folder / run}")
    return world.run(_train, *flags, *TRAINING, *where)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("hub")
    with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        for name, value in hub.environment(folder).items():
            patch.setenv(name, value)
        with ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_start, initargs=(folder,)
        ) as pool:
            pool.submit(
                os.getpid
            ).result()  # started, so it has these settings; this process gets its own back
            patch.undo()
            yield World(hub, pool, folder)


@pytest.fixture(scope="module")
def published(world: World) -> World:
    """The whole way: a dataset, a policy pretrained on it, finetuned (in private), and exported."""
    world.must(_make_video, world.folder / "clips")
    world.must(
        _import_videos,
        "--source.type=folder",
        f"--source.path={world.folder / 'clips'}",
        '--source.license_note="my own, CC0"',
        "--repo_id=somebody/clips",
        f"--root={world.folder / 'imported'}",
        "--size=32",
        "--workers=0",
        "--license=cc0-1.0",
        "--push_to_hub=true",
    )
    # Without --dataset.root: LeRobot takes the dataset from the Hub.
    pretraining = ("--policy.type=lawm_act", *TINY, "--dataset.repo_id=somebody/clips")
    outcome = publish(world, "pretrain", "somebody/pretrained", *pretraining, "--policy.license=cc0-1.0")
    assert outcome.error is None, outcome.log[-3000:]
    world.must(_make_demonstrations, world.folder / "demonstrations")
    demonstrations = (
        "--dataset.repo_id=somebody/demonstrations",
        f"--dataset.root={world.folder / 'demonstrations'}",
    )
    # The card's own command, but from the directory, so that there is a path to be kept to oneself.
    flags = command_of(card(world, "somebody/pretrained"))[1:]
    flags[flags.index("--policy.path=somebody/pretrained")] = f"--policy.path={checkpoint(world, 'pretrain')}"
    private = "--policy.private=true"
    outcome = publish(world, "finetune", "somebody/finetuned", *flags, *demonstrations, private)
    assert outcome.error is None, outcome.log[-3000:]
    world.must(
        _export,
        "--policy.path=somebody/finetuned",
        f"--output_dir={world.folder / 'plain'}",
        "--push_to_hub=true",
        "--repo_id=somebody/plain",
        "--private=true",
    )
    return world


def checkpoint(world: World, run: str) -> Path:
    return world.folder / run / "checkpoints" / "last" / "pretrained_model"


def card(world: World, repo_id: str) -> ModelCard:
    return ModelCard(world.hub.files(repo_id)["README.md"].decode())


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def command_of(found: ModelCard) -> list[str]:
    """The first lerobot-train command of a card."""
    script = blocks(str(found), "bash")[0].replace("\\\n", " ")
    (line,) = [line for line in script.splitlines() if line.startswith("lerobot-train")]
    return shlex.split(line)


def published_json(world: World, repo_id: str, name: str) -> dict[str, Any]:
    return json.loads(world.hub.files(repo_id)[name])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


# --- round trips ------------------------------------------------------------------------------------------


def test_what_is_published_is_what_lies_on_disk(published: World) -> None:
    for run, repo_id in (("pretrain", "somebody/pretrained"), ("finetune", "somebody/finetuned")):
        local, remote = snapshot(checkpoint(published, run)), published.hub.files(repo_id)
        local.pop("training_curves.json")  # It belongs to the training, as the optimizer's state does.
        assert local.keys() <= remote.keys()
        rewritten = {"config.json", "train_config.json", "transfer_report.json"}
        for name in local.keys() - rewritten:
            assert remote[name] == local[name], name
    assert snapshot(published.folder / "plain") == published.hub.files("somebody/plain")
    imported = snapshot(published.folder / "imported")
    assert imported == published.hub.files("somebody/clips", "dataset", revision="v3.0")


def test_each_checkpoint_comes_in_one_commit(published: World) -> None:
    """So that a repository never holds half of one; LeRobot's own pushes that follow change nothing."""
    for repo_id in ("somebody/pretrained", "somebody/finetuned", "somebody/plain"):
        assert len(published.hub.repositories["model", repo_id].commits) == 2  # the empty one is the first


def test_loading_by_id_and_revision(published: World) -> None:
    repository = published.hub.repositories["model", "somebody/finetuned"]
    now = published.must(_load, "somebody/finetuned", None, False).value
    sha, files = repository.commits[-1]
    repository.add({**files, "model.safetensors": b"nothing"})
    try:
        assert published.must(_load, "somebody/finetuned", sha, False).value == now
        assert (
            "cannot be read as safetensors" in published.run(_load, "somebody/finetuned", None, False).error
        )
    finally:
        repository.commits.pop()


@pytest.fixture(scope="module")
def from_hub(published: World) -> World:
    """Finetuned from a tag of what is on the Hub."""
    published.hub.repositories["model", "somebody/pretrained"].tags["v1"] = published.hub.repositories[
        "model", "somebody/pretrained"
    ].commits[-1][0]
    path = ("--policy.path=somebody/pretrained", "--policy.stage=finetune", "--policy.pretrained_revision=v1")
    dataset = ("--dataset.repo_id=a/b", f"--dataset.root={published.folder / 'demonstrations'}")
    outcome = publish(published, "from_hub", "somebody/from_hub", *path, *dataset)
    assert outcome.error is None, outcome.log[-3000:]
    return published


def test_finetuning_from_the_hub_at_a_revision(from_hub: World) -> None:
    config = published_json(from_hub, "somebody/from_hub", "config.json")
    assert config["transferred_from"] == "somebody/pretrained@v1"
    assert card(from_hub, "somebody/from_hub").data.base_model == "somebody/pretrained"


def test_pretraining_from_a_plain_policy_on_the_hub(published: World) -> None:
    path = ("--policy.type=lawm_act", *TINY, "--policy.base_path=somebody/plain")
    dataset = "--dataset.repo_id=somebody/clips"
    outcome = publish(published, "based", "somebody/based", *path, dataset)
    assert outcome.error is None, outcome.log[-3000:]
    assert "somebody/plain" in outcome.log
    assert published_json(published, "somebody/based", "config.json")["base_path"] == "somebody/plain"
    report = published_json(published, "somebody/based", "transfer_report.json")
    assert report["source"] == "somebody/plain" and report["summary"]["kept"] > 0
    found = card(published, "somebody/based")
    assert found.data.base_model == "somebody/plain"
    assert "Began with the weights of [somebody/plain]" in found.text

    outcome = publish(published, "never", "somebody/never", *path, dataset, "--policy.base_revision=v9")
    assert "there is no such revision): change --policy.base_revision" in outcome.error


@pytest.fixture(scope="module")
def saving(published: World) -> World:
    """A run whose checkpoints are uploaded on the way."""
    dataset = ("--dataset.repo_id=a/b", f"--dataset.root={published.folder / 'demonstrations'}")
    flags = ("--save_checkpoint_to_hub=true", "--policy.private=null")
    path = f"--policy.path={checkpoint(published, 'finetune')}"
    outcome = publish(published, "saving", "somebody/saving", path, *dataset, *flags)
    assert outcome.error is None, outcome.log[-3000:]
    return published


def test_checkpoints_on_the_way_and_resuming_from_the_hub(saving: World) -> None:
    published = saving
    dataset = ("--dataset.repo_id=a/b", f"--dataset.root={published.folder / 'demonstrations'}")
    assert published.hub.repositories["model", "somebody/saving"].tags.keys() == {"000002"}
    outcome = published.must(
        _train,
        "--config_path=somebody/saving",
        "--resume=true",
        *dataset,
        f"--output_dir={published.folder / 'resumed'}",
        "--steps=3",
        "--save_checkpoint_to_hub=false",
    )
    assert "step:3 " in outcome.log and "step:2 " not in outcome.log
    assert (published.folder / "resumed" / "checkpoints" / "000003").is_dir()
    assert len(published.hub.files("somebody/saving")) > 10


# --- cards ------------------------------------------------------------------------------------------------


def test_card_of_pretraining(published: World) -> None:
    found = card(published, "somebody/pretrained")
    data = found.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"], data["license"]) == ("lerobot", "robotics", "cc0-1.0")
    assert data["datasets"] == ["somebody/clips"]
    assert {"lerobot", "lawm", "lawm_act", "pretraining"} <= set(data["tags"])
    assert "base_model" not in data
    text = found.text
    assert "| folder:clips | 2 | 0.00 | my own, CC0 |" in text
    for figure in ("mse_over_copy", "shuffle_ratio", "latent_std", "latent_rank"):
        assert re.search(rf"\| `{figure}` \| \d", text)
    assert "on up to 64 clips of the corpus" in text and "| steps | 2 |" in text
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", text)
    assert published.hub.files("somebody/pretrained")[picture].startswith(b"\x89PNG")
    assert published.must(_run_python, blocks(text, "python")[0]).value == "LawmActPolicy"


def test_card_of_finetuning(published: World) -> None:
    found = card(published, "somebody/finetuned")
    data = found.data.to_dict()
    assert (data["base_model"], data["base_model_relation"]) == ("somebody/pretrained", "finetune")
    assert data["datasets"] == ["somebody/demonstrations"]
    assert data["license"] == "cc0-1.0"  # the pretraining's, like all that its config says
    report = json.loads((checkpoint(published, "finetune") / "transfer_report.json").read_text())
    assert f"{report['summary']['kept']} were kept" in found.text
    for tensor in report["tensors"]:
        assert tensor["status"] == "kept" or tensor["reason"] in found.text
    assert "| output | `action` | 3 |" in found.text
    assert "top: {type: opencv" in found.text
    assert published.must(_run_python, blocks(found.text, "python")[0]).value == "LawmActPolicy"


def test_card_of_an_export_loads_without_the_plugin(published: World) -> None:
    found = card(published, "somebody/plain")
    data = found.data.to_dict()
    assert (data["base_model"], data["model_name"]) == ("somebody/finetuned", "act")
    assert "somebody/pretrained" in found.text and "| steps | 2 |" in found.text
    (code,) = blocks(found.text, "python")
    assert "lawm" not in code
    assert published.must(_run_python, code).value == "ACTPolicy"


def test_card_of_a_dataset(published: World) -> None:
    content = published.hub.files("somebody/clips", "dataset")["README.md"].decode()
    data = DatasetCard(content).data.to_dict()
    assert data["license"] == "cc0-1.0" and data["task_categories"] == ["robotics"]
    assert {"LeRobot", "unlabelled"} <= set(data["tags"])
    assert "| folder:clips | 2 | 0.00 | my own, CC0 |" in content
    assert "--dataset.repo_id=somebody/clips" in content


def test_card_of_adapters() -> None:
    """It differs from a whole policy's in what it is and how it loads. And its command names a real arm's type."""
    from lerobot.configs import FeatureType, PolicyFeature

    from lawm_lerobot.hub import cards
    from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
    from lawm_lerobot.policies.common.clips import real_cameras

    camera = PolicyFeature(FeatureType.VISUAL, (3, 48, 64))
    names = ("observation.images.top", "observation.images.empty_camera_0")
    config = LawmActConfig(stage="finetune", use_peft=True, input_features=dict.fromkeys(names, camera))
    rollout = cards.rollout_command("a/b", real_cameras(config), "so_follower", 30)
    found = cards.policy_card(
        config,
        "finetuned",
        "a/b",
        plain_type="act",
        base="a/pretrained",
        datasets=[],
        adapters=True,
        rollout=rollout,
    )
    assert found.data.base_model_relation == "adapter"
    assert "**It is** a set of adapters" in found.text and "as large" not in found.text
    assert "--robot.type=so101_follower" in found.text  # LeRobot's datasets have the driver's name
    assert "top: {type" in found.text and "empty_camera_0: {type" not in found.text
    (code,) = blocks(found.text, "python")
    assert "load_whole_policy(config)" in code and ".from_pretrained" in code
    compile(code, "card", "exec")


def test_a_card_that_cannot_be_checked_is_a_warning(published: World) -> None:
    with published.hub.failing("validate-yaml", 503):
        outcome = push_again(published)
    assert outcome.error is None
    assert "published unchecked" in outcome.log


def test_without_the_dataset_the_card_does_without_figures(
    published: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = published.must(
        _push_without_pictures, checkpoint(published, "pretrain"), published.folder / "gone"
    )
    assert "The card goes without picture and measured figures" in outcome.log
    text = card(published, "somebody/blind").text
    assert "Not measured" in text and "![" not in text


def _push_without_pictures(path: Path, root: Path) -> None:
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.utils.utils import init_logging

    from lawm_lerobot.policies.act.modeling_lawm_act import LawmActPolicy

    init_logging()
    policy = LawmActPolicy.from_pretrained(path, allow_pretraining=True)
    policy.config.repo_id = "somebody/blind"
    meta = LeRobotDatasetMetadata("somebody/clips")
    lost = SimpleNamespace(**{name: getattr(meta, name) for name in META}, repo_id="somebody/lost", root=root)
    policy.push_model_to_hub(TrainPipelineConfig.from_pretrained(path), dataset_meta=lost)


META = ("stats", "tasks", "total_episodes", "total_frames", "fps", "camera_keys", "robot_type")


# --- what must not be published ---------------------------------------------------------------------------


def test_nothing_published_names_this_machine(from_hub: World, saving: World) -> None:
    published = saving
    # LeRobot uploads the checkpoints on the way as they lie on the disk.
    assert str(published.folder) in published.hub.files("somebody/saving")[ON_THE_WAY].decode()
    for repo_id in ("somebody/pretrained", "somebody/finetuned", "somebody/plain", "somebody/from_hub"):
        for _, files in published.hub.repositories["model", repo_id].commits:
            named = [name for name, content in files.items() if str(published.folder).encode() in content]
            assert not named
    for name, content in published.hub.files("somebody/clips", "dataset").items():
        table = pd.read_parquet(io.BytesIO(content)).to_json() if name.endswith(".parquet") else ""
        assert str(published.folder).encode() not in content, name
        assert str(published.folder) not in table.replace("\\/", "/"), name
    config = published_json(published, "somebody/finetuned", "config.json")
    assert (config["transferred_from"], config["pretrained_path"]) == (
        "somebody/pretrained",
        None,
    )
    assert (
        published_json(published, "somebody/finetuned", "transfer_report.json")["source"]
        == "somebody/pretrained"
    )


ON_THE_WAY = "checkpoints/000002/pretrained_model/train_config.json"


def test_private_stays_private(published: World) -> None:
    for repo_id in ("somebody/finetuned", "somebody/plain"):
        assert published.hub.repositories["model", repo_id].private
        assert "private" not in card(published, repo_id).text
    assert not published.hub.repositories["model", "somebody/pretrained"].private
    flags = (f"--policy.path={checkpoint(published, 'finetune')}", f"--output_dir={published.folder / 'no'}")
    push = ("--push_to_hub=true", "--repo_id=somebody/pretrained", "--private=true")
    before = published.hub.files("somebody/pretrained")
    outcome = published.run(_export, *flags, *push)
    assert outcome.error == "1"
    assert last_line(outcome).startswith("error: somebody/pretrained exists and is public")
    assert published.hub.files("somebody/pretrained") == before


# --- when it fails ----------------------------------------------------------------------------------------


def push_again(world: World) -> Outcome:
    """Run the command that the sentence about a failed push names."""
    config = checkpoint(world, "finetune") / "train_config.json"
    return world.run(_train, f"--config_path={config}", "--resume=true")


FAILURES = [
    ("commit", 403, "the Hub answered 403"),
    ("commit", 500, "the Hub answered 500"),
    ("commit", DROP_HALFWAY, "no connection to http"),
    ("repos/create", DROP, "no connection to http"),
]


@pytest.fixture
def emptied(published: World) -> Iterator[World]:
    """The finetuned repository without its files, so that there is something to push."""
    repository = published.hub.repositories["model", "somebody/finetuned"]
    repository.add({})
    yield published
    del repository.commits[2:]


@pytest.mark.parametrize(("request_", "how", "says"), FAILURES)
def test_a_failed_push_after_training(emptied: World, request_: str, how: int | str, says: str) -> None:
    local = snapshot(checkpoint(emptied, "finetune"))
    with emptied.hub.failing(request_, how):
        outcome = push_again(emptied)
    sentence = outcome.error.removeprefix("lawm_lerobot.hub.errors.HubError: ")
    assert sentence.startswith(f"Pushing to somebody/finetuned failed ({says}")
    assert "\n" not in sentence
    (config,) = re.findall(r"lerobot-train --resume=true --config_path=(\S+) pushes it again", sentence)
    assert Path(config).samefile(checkpoint(emptied, "finetune") / "train_config.json")
    assert snapshot(checkpoint(emptied, "finetune")) == local
    assert emptied.hub.files("somebody/finetuned") == {}


def test_pushing_again_as_the_sentence_says(emptied: World) -> None:
    before = emptied.hub.repositories["model", "somebody/finetuned"].commits[1][1]
    outcome = push_again(emptied)
    assert outcome.error is None, outcome.log[-3000:]
    assert "step:" not in outcome.log.partition("Start offline training")[2]
    assert emptied.hub.files("somebody/finetuned").keys() == before.keys()


def test_finetuning_does_not_replace_its_pretraining(published: World) -> None:
    path = (f"--policy.path={checkpoint(published, 'pretrain')}", "--policy.stage=finetune")
    dataset = ("--dataset.repo_id=a/b", f"--dataset.root={published.folder / 'demonstrations'}")
    outcome = publish(published, "never", "somebody/pretrained", *path, *dataset)
    assert "give another --policy.repo_id" in outcome.error


def last_line(outcome: Outcome) -> str:
    return outcome.log.strip().splitlines()[-1]


@pytest.mark.parametrize(("request_", "how", "says"), FAILURES)
def test_a_failed_push_of_an_export(
    published: World, tmp_path: Path, request_: str, how: int | str, says: str
) -> None:
    flags = (f"--policy.path={checkpoint(published, 'finetune')}", f"--output_dir={tmp_path / 'plain'}")
    with published.hub.failing(request_, how):
        outcome = published.run(_export, *flags, "--push_to_hub=true", "--repo_id=somebody/never")
    assert outcome.error == "1"
    sentence = last_line(outcome)
    assert sentence.startswith(f"error: Pushing to somebody/never failed ({says}")
    assert f"`hf upload somebody/never {tmp_path / 'plain'}`" in sentence
    assert {"model.safetensors", "config.json", "README.md"} <= snapshot(tmp_path / "plain").keys()


@pytest.mark.parametrize(("request_", "how", "says"), FAILURES)
def test_a_failed_push_of_a_dataset(
    published: World, tmp_path: Path, request_: str, how: int | str, says: str
) -> None:
    root = tmp_path / "imported"
    shutil.copytree(published.folder / "imported", root)
    local = snapshot(root)
    flags = ("--repo_id=somebody/clips", f"--root={root}", "--push_to_hub=true")
    repository = published.hub.repositories["dataset", "somebody/clips"]
    repository.add({})
    with published.hub.failing(request_, how):
        outcome = published.run(_import_videos, *flags)
    assert outcome.error == "1"
    last = outcome.log.strip().splitlines()[-1]
    assert last.startswith(f"error: Pushing to somebody/clips failed ({says}")
    (command,) = re.findall(r"`lawm-import-videos (.*)`", last)
    assert shlex.split(command) == list(flags)
    assert snapshot(root) == local
    assert repository.commits[-1][1] == {}
    published.must(_import_videos, *flags)
    assert repository.commits[-1][1] == repository.at("v3.0")[1] == local


def test_a_private_dataset_is_pushed_again_in_private(published: World, tmp_path: Path) -> None:
    shutil.copytree(published.folder / "imported", tmp_path / "imported")
    where = ("--repo_id=somebody/secret", f"--root={tmp_path / 'imported'}", "--push_to_hub=true")
    with published.hub.failing("repos/create", 500):
        outcome = published.run(_import_videos, *where, "--private=true")
    (command,) = re.findall(r"`lawm-import-videos (.*)`", outcome.log)
    published.must(_import_videos, *shlex.split(command))
    assert published.hub.repositories["dataset", "somebody/secret"].private


def test_pushing_a_dataset_under_another_name(published: World, tmp_path: Path) -> None:
    shutil.copytree(published.folder / "imported", tmp_path / "imported")
    flags = (
        "--repo_id=somebody/again",
        f"--root={tmp_path / 'imported'}",
        "--push_to_hub=true",
        "--private=true",
    )
    published.must(_import_videos, *flags)
    assert published.hub.repositories["dataset", "somebody/again"].private
    content = published.hub.files("somebody/again", "dataset")["README.md"].decode()
    assert "--dataset.repo_id=somebody/again" in content and "my own, CC0" in content


@pytest.mark.parametrize(
    ("repo_id", "revision", "failure", "says"),
    [
        ("somebody/missing", None, None, "no such repository that your token may see"),
        ("somebody/finetuned", "v9", None, "there is no such revision"),
        ("somebody/finetuned", None, ("config.json", 500), "the Hub answered 500"),
        ("somebody/finetuned", None, ("model.safetensors", 403), "the Hub answered 403"),
        ("somebody/finetuned", None, ("config.json", DROP), "no connection to http"),
    ],
)
def test_a_failed_load(
    published: World, tmp_path: Path, repo_id: str, revision: str | None, failure: Any, says: str
) -> None:
    """Load a policy that is not in the cache: from Python, and by a command."""
    failing = published.hub.failing(*failure) if failure else contextlib.nullcontext()
    flags = [f"--policy.path={repo_id}", f"--output_dir={tmp_path / 'plain'}"]
    with failing:
        published.must(_forget)
        loaded = published.run(_load, repo_id, revision, False)
        exported = published.run(
            _export, *flags, *([f"--policy.pretrained_revision={revision}"] * bool(revision))
        )
    sentence = f"Loading {repo_id} failed ({says}"
    assert loaded.error.startswith(f"lawm_lerobot.hub.errors.HubError: {sentence}")
    assert exported.error == "1"
    assert last_line(exported).startswith(f"error: {sentence}")
    assert "\n" not in loaded.error
    assert not (tmp_path / "plain").exists()


def _forget() -> None:
    from huggingface_hub import constants

    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)


def test_training_from_a_missing_repository_ends_with_a_sentence(published: World) -> None:
    path = ("--policy.path=somebody/missing", "--policy.stage=finetune", "--dataset.repo_id=a/b")
    outcome = publish(published, "never", "somebody/never", *path)
    assert (
        outcome.error == "FileNotFoundError: config.json not found on the HuggingFace Hub in somebody/missing"
    )


def test_offline_is_said_in_a_sentence() -> None:
    """In this process HF_HUB_OFFLINE is set."""
    from lawm_lerobot.checkpoints.reading import read_policy_config
    from lawm_lerobot.hub.errors import HubError

    with pytest.raises(HubError, match=r"^Loading somebody/x failed \(HF_HUB_OFFLINE is set\): unset it\.$"):
        read_policy_config("somebody/x")


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "config", "private", "name"),
    [
        ("somebody/x", None, None, "somebody/x"),
        ("somebody/x@v1", None, None, "somebody/x@v1"),
        ("run7/checkpoints/005000/pretrained_model", {}, None, "run7"),
        ("run7/checkpoints/last/pretrained_model", {"repo_id": "a/b", "push_to_hub": True}, None, "a/b"),
        ("run7/checkpoints/last/pretrained_model", {"repo_id": "a/b", "push_to_hub": False}, None, "run7"),
        ("run7", {"repo_id": "a/b", "push_to_hub": True, "private": True}, None, "run7"),
        ("run7", {"repo_id": "a/b", "push_to_hub": True, "private": True}, True, "a/b"),
    ],
)
def test_public_names(
    tmp_path: Path, source: str, config: dict | None, private: bool | None, name: str
) -> None:
    """A private repository's name is told by a private one only."""
    from lawm_lerobot.hub.names import public_name

    if config is not None:
        (tmp_path / source).mkdir(parents=True)
        (tmp_path / source / "config.json").write_text(json.dumps(config))
        source = str(tmp_path / source)
    assert public_name(source, private) == name


def test_absolute_paths_anywhere_are_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from lawm_lerobot.hub.names import make_public

    values = {
        "vlm_model_name": "/models/tiny_vlm",
        "labels": {"root": "/data/labels", "repo_id": "a/b"},
        "source": "policy",
        "paths": ["C:\\data\\x", "relative/stays"],
        "pretrained_path": "outputs/pretrain/checkpoints/last/pretrained_model",
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    make_public(tmp_path, private=None)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "vlm_model_name": "tiny_vlm",
        "labels": {"root": None, "repo_id": "a/b"},
        "source": "policy",
        "paths": ["x", "relative/stays"],
        "pretrained_path": None,
    }
    assert "vlm_model_name" in caplog.text


def test_an_export_is_published_without_paths(published: World, tmp_path: Path) -> None:
    """A tokenizer's, for one, which the processors of a vision-language-action policy name."""
    published.must(_push_export_with_a_path, checkpoint(published, "finetune"), tmp_path / "plain")
    files = published.hub.files("somebody/path")
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content]
    assert str(tmp_path) in (tmp_path / "plain" / PREPROCESSOR).read_text()  # here it still serves


def _push_export_with_a_path(source: Path, folder: Path) -> None:
    from lerobot.configs import PreTrainedConfig

    from lawm_lerobot.policies.common.exporting import export_checkpoint
    from lawm_lerobot.policies.common.publishing import push_export

    config = PreTrainedConfig.from_pretrained(source)
    config.pretrained_path = source
    export_checkpoint(config, folder)
    processor = json.loads((folder / PREPROCESSOR).read_text())
    processor["steps"][0]["config"]["tokenizer_name"] = str(folder / "model")
    (folder / PREPROCESSOR).write_text(json.dumps(processor))
    push_export(folder, config, "somebody/path", None)


PREPROCESSOR = "policy_preprocessor.json"


def test_the_token_is_nowhere(published: World) -> None:
    """Last, when every command has said what it says; the token did reach the Hub, which asks for it."""
    token = published.hub.token
    assert token.encode() not in published.hub.everything()
    assert published.logs and not [log for log in published.logs if token in log]
    for file in published.folder.rglob("*"):
        if file.is_file() and file.suffix != ".safetensors":
            assert token.encode() not in file.read_bytes(), file

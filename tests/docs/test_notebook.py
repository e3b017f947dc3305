"""The example notebook, executed as it stands but for fewer steps."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from helpers.pages import ROOT
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = ROOT / "examples" / "phone_video.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.get("outputs", []) == [] for cell in notebook.cells)


@pytest.mark.slow
def test_the_notebook_runs_to_its_last_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = [cell for cell in notebook.cells if "STEPS, BATCH_SIZE =" in cell.source]
    settings.source += "\nDEVICE, STEPS, BATCH_SIZE = 'cpu', 27, 4"
    # A kernel of this environment, whatever others are installed for the user.
    monkeypatch.setenv("JUPYTER_PATH", str(Path(sys.prefix) / "share" / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "display_data" and "image/png" in output.data
    ]
    assert len(shown) == 5
    for picture in ("dataset/dataset", "inspection/strips", "inspection/looking", "pretrain/pictures/curves"):
        with Image.open(tmp_path / "outputs" / f"{picture}.png") as image:
            assert min(image.size) > 100

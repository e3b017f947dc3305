"""Environment shared by all tests. Set before anything reads it, and inherited by the commands that tests start."""

import os
import sys
from pathlib import Path

# No test may depend on the Hub: what is missing locally has to fail at once, not after a download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The models under test are tiny; more threads cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `make test` sets MUJOCO_GL; this serves whoever calls pytest directly.
if sys.platform == "linux":
    remembered = Path(sys.prefix) / "mujoco_gl"
    os.environ.setdefault("MUJOCO_GL", remembered.read_text().strip() if remembered.exists() else "egl")

#!/usr/bin/env bash
# Make .venv: a suitable Python, the pinned requirements, this package (editable), and a working MuJoCo renderer.
# Called by `make setup`; safe to run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }
die() {
  say "make setup: $*"
  exit 1
}

# Prints the interpreter's own path if it runs, is CPython 3.12 or 3.13 with the global interpreter lock, and was built
# with the modules the requirements need. Merely being on PATH proves nothing: pyenv's shims exist for versions that
# are not active.
usable_python() {
  "$1" -I - <<'PY' 2>/dev/null
import bz2, ctypes, lzma, sqlite3, ssl, sys, sysconfig

suitable = (3, 12) <= sys.version_info[:2] < (3, 14) and sys.implementation.name == "cpython"
if not suitable or sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(1)
print(sys.executable)
PY
}

# One candidate per line, the version of .python-version first.
python_candidates() {
  local version root
  for version in 3.12 3.13; do
    echo "python$version"
    for root in "${PYENV_ROOT:-$HOME/.pyenv}" "$HOME/.pyenv"; do
      printf '%s\n' "$root/versions/$version"*/bin/python
    done
    printf '%s\n' \
      "$HOME/.asdf/installs/python/$version"*/bin/python \
      "${XDG_DATA_HOME:-$HOME/.local/share}/mise/installs/python/$version"*/bin/python \
      "${XDG_DATA_HOME:-$HOME/.local/share}/uv/python/cpython-$version"*/bin/python \
      "/opt/homebrew/bin/python$version" "/usr/local/bin/python$version" "/usr/bin/python$version"
  done
  echo python3
  echo python
  [[ -n ${CONDA_PREFIX:-} ]] && echo "$CONDA_PREFIX/bin/python"
  for root in miniforge3 mambaforge miniconda3 anaconda3; do
    printf '%s\n' "$HOME/$root/bin/python" "$HOME/$root/envs/"*/bin/python
  done
}

find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    usable_python "$PYTHON"
    return
  fi
  while IFS= read -r candidate; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    usable_python "$candidate" && return
  done < <(python_candidates)
  return 1
}

# An uv that runs: the user's own, or one that an earlier setup put into .venv-tools.
find_uv() {
  local candidate
  for candidate in uv .venv-tools/bin/uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/uv; do
    if "$candidate" --version >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# Installs Debian packages where that is possible without asking anyone.
apt_install() {
  [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
  say "Installing $*"
  # An outdated or partly unreachable package list may still hold what is needed.
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Puts uv into .venv-tools with whatever Python there is, leaving the system's packages alone.
bootstrap_uv() {
  local python
  say "Installing uv into .venv-tools"
  for python in "$@" /usr/bin/python3 python3 python; do
    "$python" -c '' >/dev/null 2>&1 || continue
    rm -rf .venv-tools
    # The second form serves systems that split venv or ensurepip off their Python.
    if "$python" -m venv .venv-tools >/dev/null 2>&1; then
      .venv-tools/bin/python -m pip install --quiet uv && return
    fi
    rm -rf .venv-tools
    "$python" -m pip install --quiet --target .venv-tools uv 2>/dev/null && return
  done
  rm -rf .venv-tools
  return 1
}

renders() { MUJOCO_GL=$1 .venv/bin/python tools/check_rendering.py >/dev/null 2>&1; }

# Writes the first backend that draws an image to .venv/mujoco_gl, from where the Makefile and the tests read it.
find_renderer() {
  local backend backends=(egl osmesa)
  [[ $(uname -s) == Darwin ]] && backends=(cgl)
  for backend in ${MUJOCO_GL:+"$MUJOCO_GL"} "${backends[@]}"; do
    if renders "$backend"; then
      echo "$backend" >.venv/mujoco_gl
      return
    fi
  done
  rm -f .venv/mujoco_gl
  return 1
}

# LeRobot decodes video with torchcodec, which takes half of PyAV's time and needs the system's FFmpeg.
decodes() { .venv/bin/python -c 'import torchcodec' >/dev/null 2>&1; }

rendering_packages=(libegl1 libgl1 libgl1-mesa-dri)

# Networks that inspect TLS put their certificate into the system's store, which uv does not read by default.
[[ -e /etc/ssl/certs/ca-certificates.crt ]] && export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}"
export PIP_DISABLE_PIP_VERSION_CHECK=1

python=$(find_python) || python=
[[ -n $python || -z ${PYTHON:-} ]] || die "PYTHON=$PYTHON does not run, or is not a complete CPython 3.12 or 3.13."

uv=$(find_uv) || {
  bootstrap_uv ${python:+"$python"} || { apt_install python3-venv && bootstrap_uv; } ||
    die "uv is missing and no Python here can install it; install uv and run again."
  uv=.venv-tools/bin/uv
}

if ! usable_python .venv/bin/python >/dev/null; then
  if [[ -z $python ]]; then
    say "No Python 3.12 or 3.13 found; asking uv to download one"
    "$uv" python install --quiet 3.12 2>/dev/null ||
      die "needs Python 3.12 or 3.13, found none, and uv could not download one (\`$uv python install 3.12\` says" \
        "why); install one, or name one with PYTHON=<path>."
    python=$("$uv" python find --managed-python 3.12)
  fi
  say "Making .venv with $("$python" --version) at $python"
  rm -rf .venv
  "$uv" venv --quiet --python "$python" .venv
fi

say "Installing requirements.lock"
"$uv" pip install --quiet --python .venv/bin/python --requirement requirements.lock
# The build backend comes from the lock file too, so the build needs no environment of its own.
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .

decodes || { apt_install ffmpeg && decodes; } ||
  say "Videos will be decoded by PyAV, in twice the time: torchcodec cannot be loaded. Most often FFmpeg is missing" \
    "(Debian and Ubuntu: apt-get install ffmpeg)."

if find_renderer || { apt_install "${rendering_packages[@]}" && find_renderer; }; then
  say "Ready; MuJoCo renders with MUJOCO_GL=$(<.venv/mujoco_gl)"
else
  say "Ready, but MuJoCo cannot render off-screen here, which the simulator needs: install EGL or OSMesa" \
    "(Debian and Ubuntu: apt-get install ${rendering_packages[*]}), then run make -B setup."
fi

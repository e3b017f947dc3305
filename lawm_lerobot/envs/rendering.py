"""MuJoCo imported so that it draws without a display, and its renderer without what is slow on a CPU."""

import atexit
import os
import weakref
from functools import cache

try:
    import mujoco
except AttributeError as error:  # PyOpenGL raises it when the shared library is not there
    raise ImportError(
        f"mujoco cannot load the {os.environ.get('MUJOCO_GL')} graphics library ({error}): install it (Debian: "
        "apt install libegl1, or libosmesa6 with MUJOCO_GL=osmesa), or set MUJOCO_GL to another of egl, osmesa, glfw"
    ) from error


def make_renderer(model: mujoco.MjModel, size: int, shadows: bool) -> mujoco.Renderer:
    """A renderer of (size, size, 3) pictures, without shadows, reflections and multisampling unless asked for.

    Raises:
        RuntimeError: If there is no graphics context; says which variable to change.
    """
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    if not shadows:
        # Both are read when the graphics context is created, not when a frame is drawn.
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
    try:
        renderer = mujoco.Renderer(model, size, size)
    except Exception as error:
        raise RuntimeError(
            f"mujoco could not open a {os.environ.get('MUJOCO_GL', 'default')} graphics context ({error}): set "
            "MUJOCO_GL to another of egl, osmesa, glfw, and see that its library is installed (Debian: libegl1, "
            "libosmesa6)"
        ) from error
    if not shadows:
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    _open_renderers.add(renderer)
    _close_renderers_at_exit()
    return renderer


# A renderer left open at exit makes mujoco print tracebacks, because it ends the display before its contexts. Exit
# hooks run last in, first out, so this one is registered after mujoco's own, that is after the first renderer.
_open_renderers: weakref.WeakSet[mujoco.Renderer] = weakref.WeakSet()


@cache
def _close_renderers_at_exit() -> None:
    atexit.register(lambda: [renderer.close() for renderer in _open_renderers])

"""LeRobot's Meta-World environment with small, quick pictures.

LeRobot's `MetaworldEnv` draws 480x480 pixels with shadows, reflections and multisampling; on a CPU the shadow map
alone is nine tenths of the time. This subclass draws at the requested size with all three off. Measured on push-v3 with
Mesa's software renderer (EGL, MuJoCo 3.16), as calls of `step` per second of CPU time, median of four rounds:

    environment       pixels   steps per CPU second
    LeRobot's            480                    9.9
    this                 128                   91     (7.4 with shadows=True)
    this                  96                  102
    this                  64                  104

What is left is the arm's 67 000 triangles (9 ms) and the physics (1 ms), so smaller pictures gain no more, and
body="hidden" doubles the steps.
"""

import atexit
import multiprocessing
import os
import sys
import warnings
import weakref
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np

# Chosen when mujoco is imported. Its default on Linux, GLFW, needs a display, which servers and worker processes
# do not have.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

try:
    import mujoco
except AttributeError as error:  # PyOpenGL raises it when the shared library is not there
    raise ImportError(
        f"mujoco cannot load the {os.environ.get('MUJOCO_GL')} graphics library ({error}): install it (Debian: "
        "apt install libegl1, or libosmesa6 with MUJOCO_GL=osmesa), or set MUJOCO_GL to another of egl, osmesa, glfw"
    ) from error

if mujoco.mjNEQDATA != 11:
    raise ImportError(
        f"Meta-World 3.0.0 cannot read the models of mujoco {mujoco.__version__}: pip install 'mujoco<3.17'"
    )

from lerobot.envs.metaworld import MetaworldEnv
from lerobot.envs.utils import _LazyAsyncVectorEnv, freeze_after_episode_end
from metaworld import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

from lawm_lerobot.envs.configuration_metaworld import FIXED_CAMERAS, STATE_DIM, check_variation

# Said by the scripted experts at nearly every step: their raw actions are larger than 1. expert_action() clips them.
warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high", module="metaworld")

# These hang head down in Meta-World's scene file: their picture is turned by 180 degrees.
UPSIDE_DOWN_CAMERAS = ("corner", "corner2", "corner3")

# Closer than in Meta-World's scene file; LeRobot moves the camera to the same place, and so do its public datasets.
CORNER2_POSITION = (0.75, 0.075, 0.7)  # metres

WORKSPACE_CENTRE = (0.0, 0.6)  # x, y in metres
# Where distractors stand, and the places tried for each before one too close to something else is taken.
DISTRACTOR_AREA = ((-0.35, 0.4), (0.35, 0.9))  # lowest and highest x, y in metres
DISTRACTOR_TRIALS = 200
DISTRACTOR_SHAPES = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_SPHERE)
# Not red, green or blue, the colours of Meta-World's goal markers.
DISTRACTOR_COLOURS = (
    (0.9, 0.8, 0.1),
    (0.95, 0.5, 0.1),
    (0.95, 0.5, 0.7),
    (0.5, 0.1, 0.6),
    (0.95, 0.95, 0.95),
)
# Bodies of Meta-World's scene files that are the same in every task; the others, with their parts, are the task's.
SCENE_BODIES = ("", "tablelink", "RetainingWall", "base", "mocap")

RECOLOURED = (0.1, 0.25, 0.7)  # in place of Sawyer's red
RESCALED = 1.5  # thickness of the links; their length stays. Thinner ones come apart at the joints


class LawmMetaworldEnv(MetaworldEnv):
    """One Meta-World v3 task, observed as LeRobot's policies expect it.

    Observation: `pixels` {camera: (size, size, 3) uint8, upright}; `agent_pos` (4,) float64, the hand's x, y, z in
    metres and the gripper's opening in [0, 1]. Action: (4,) float32 in [-1, 1], the hand's displacement and the
    gripper's effort. The episode terminates at the first success and is truncated after `episode_length` steps;
    `info["is_success"]` and, at the end, `info["final_info"]["is_success"]` say which. Unlike LeRobot's class it
    does not reset itself then, so a recorder can go on stepping for a few frames.

    The simulation and its graphics context are made at the first `reset` (in the worker process of an `AsyncVectorEnv`),
    and again if the environment is used after `close` (as `lerobot-train` does between two evaluations).

    The arguments are those of `LawmMetaworldEnvConfig`. On some of them:

    Args:
        task: Meta-World's name of one task.
        cameras: Cameras of Meta-World; the first is the one in evaluation videos.
        camera_shift: Angle in degrees by which the fixed cameras are turned around the vertical axis through the
            workspace's centre, anticlockwise from above: the tripod stands elsewhere and still looks at the table.
            Cameras on the gripper stay there.
        distractors: Number of boxes, cylinders and spheres, 3 to 6 cm wide, that stand on the table, at other places
            in other colours in every episode; one seed gives the same. They keep clear of the task's objects and of
            the line from object to goal if there is room. Nothing collides with them.
        body: `sawyer`; `hidden`, the gripper alone, as a hand that moves things; `recoloured`, blue links; or
            `rescaled`, links half as thick again. The gripper is always Sawyer's.
    """

    metadata: dict[str, Any]
    observation_space: gym.spaces.Dict
    _env: Any  # Meta-World's environment, or None before the first reset and after close

    def __init__(
        self,
        task: str,
        size: int = 128,
        cameras: Sequence[str] = ("corner2",),
        obs_type: str = "pixels_agent_pos",
        shadows: bool = False,
        episode_length: int = 500,
        fps: int = 80,
        camera_shift: float = 0.0,
        distractors: int = 0,
        body: str = "sawyer",
    ):
        check_variation(camera_shift, distractors, body, cameras, prefix="")
        super().__init__(
            task,
            camera_name=cameras[0],
            obs_type=obs_type,
            observation_width=size,
            observation_height=size,
            visualization_width=size,
            visualization_height=size,
        )
        self.cameras = tuple(cameras)
        self.shadows = shadows
        self.camera_shift = camera_shift
        self.distractors = distractors
        self.body = body
        self.metadata = {**self.metadata, "render_fps": fps}
        self._max_episode_steps = episode_length  # read by LeRobot's rollout()
        self._steps = 0
        self._pixels: dict[str, np.ndarray] = {}
        self._raw_obs: np.ndarray | None = None
        self._distractors: list[tuple] | None = None  # mjv_initGeom's arguments; None: not yet placed
        self._renderer: mujoco.Renderer | None = None

        images = gym.spaces.Dict(dict.fromkeys(self.cameras, self.observation_space["pixels"]))
        self.observation_space = gym.spaces.Dict({**self.observation_space.spaces, "pixels": images})

    # ---- simulation -------------------------------------------------------------------------------------------

    def _ensure_env(self) -> None:
        if self._env is not None:
            return
        # LeRobot goes through metaworld.MT1, which simulates 50 resets to draw 50 goals that are not used after.
        # The seed only keeps this constructor from drawing from NumPy's global generator.
        make: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{self.task}-goal-observable"]
        env = make(seed=0)
        env._freeze_rand_vec = False  # new object positions at every reset ...
        env.seeded_rand_vec = True  # ... drawn from the generator that reset(seed=...) seeds
        env.max_path_length = sys.maxsize  # step() decides when an episode ends
        env.model.camera("corner2").pos = CORNER2_POSITION
        _shift_cameras(env.model, self.camera_shift)
        _change_body(env.model, self.body)
        self._env = env

    def _format_raw_obs(self, raw_obs: np.ndarray) -> dict[str, Any]:
        # After a reset, the goal marker's place is in the model but not yet in the data that is drawn.
        mujoco.mj_kinematics(self._env.model, self._env.data)
        mujoco.mj_camlight(self._env.model, self._env.data)
        if self.distractors and self._distractors is None:
            self._distractors = self._place_distractors()
        self._raw_obs = raw_obs
        self._pixels = {name: self._draw(name) for name in self.cameras}
        observation: dict[str, Any] = {"pixels": self._pixels}
        if self.obs_type == "pixels_agent_pos":
            observation["agent_pos"] = raw_obs[:STATE_DIM]
        return observation

    def reset(self, seed: int | None = None, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._steps = 0
        self._distractors = None
        return super().reset(seed=seed, **kwargs)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._ensure_env()
        raw_obs, reward, _, _, info = self._env.step(np.asarray(action))
        self._steps += 1
        is_success = bool(info["success"])
        truncated = not is_success and self._steps >= self._max_episode_steps
        info = {"is_success": is_success, "task": self.task}
        if is_success or truncated:
            info["final_info"] = {"is_success": is_success, "task": self.task}
        return self._format_raw_obs(raw_obs), float(reward), is_success, truncated, info

    def expert_action(self) -> np.ndarray:
        """The action of Meta-World's scripted expert, (4,) float32 in [-1, 1]. The expert sees the exact state."""
        return np.clip(self.expert_policy.get_action(self._raw_obs), -1.0, 1.0).astype(np.float32)

    def _place_distractors(self) -> list[tuple]:
        # A child of the generator, because the simulation draws its positions from the same seed's plain stream.
        random = self.np_random.spawn(1)[0]
        taken = self._taken_places()
        distractors: list[tuple] = []
        for _ in range(self.distractors):
            size = random.uniform(0.015, 0.03)  # half the width
            trials = random.uniform(*DISTRACTOR_AREA, size=(DISTRACTOR_TRIALS, 2))  # (trials, 2)
            gaps = np.linalg.norm(trials[:, None] - taken[:, :2], axis=-1) - taken[:, 2] - 1.5 * size
            # The first free one or, if there is none, the one with the least overlap.
            place = trials[np.minimum(gaps.min(axis=1), 0).argmax()]
            taken = np.vstack([taken, [*place, 1.5 * size]])
            shape = DISTRACTOR_SHAPES[random.integers(len(DISTRACTOR_SHAPES))]
            rgba = np.array([*DISTRACTOR_COLOURS[random.integers(len(DISTRACTOR_COLOURS))], 1], np.float32)
            position, rotation = np.array([*place, self._table_height(place) + size]), np.eye(3).ravel()
            distractors.append((shape, np.full(3, size), position, rotation, rgba))
        return distractors

    def _table_height(self, place: np.ndarray) -> float:
        """Height in metres of the table as it is drawn: 0, or 0.05 in the tasks whose table has a hole."""
        start = 0.1  # metres, below the hand
        position, down = np.array([*place, start]), np.array([0.0, 0, -1])
        groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # those that are drawn
        model, data = self._env.model, self._env.data
        return start - mujoco.mj_ray(model, data, position, down, groups, 1, -1, np.empty(1, np.int32))

    def _taken_places(self) -> np.ndarray:
        """(n, 3): x, y and radius in metres of the task's objects, and of the way from the object to the goal."""
        model, data = self._env.model, self._env.data
        roots = model.body_rootid[model.geom_bodyid]  # (geoms,)
        geoms = [i for i, root in enumerate(roots) if root and model.body(root).name not in SCENE_BODIES]
        objects = np.column_stack([data.geom_xpos[geoms, :2], model.geom_rbound[geoms]])
        way = np.linspace(self._env.obj_init_pos[:2], self._env._target_pos[:2], 9)
        return np.vstack([objects, np.column_stack([way, np.full(len(way), 0.05)])])

    # ---- pictures ---------------------------------------------------------------------------------------------

    def _draw(self, camera: str) -> np.ndarray:
        if self._renderer is None:
            self._renderer = self._make_renderer()
            _open_renderers.add(self._renderer)
            _close_renderers_at_exit()
        self._renderer.update_scene(self._env.data, camera=camera)
        # Into the picture, not into the model, where a body more would change the simulation.
        scene = self._renderer.scene
        for distractor in self._distractors or ():
            mujoco.mjv_initGeom(scene.geoms[scene.ngeom], *distractor)
            scene.geoms[scene.ngeom].category = mujoco.mjtCatBit.mjCAT_DYNAMIC  # casts a shadow
            scene.ngeom += 1
        image = self._renderer.render()
        if camera in UPSIDE_DOWN_CAMERAS:
            image = np.ascontiguousarray(image[::-1, ::-1])
        return image

    def _make_renderer(self) -> mujoco.Renderer:
        visual = self._env.model.vis
        visual.global_.offwidth, visual.global_.offheight = self.observation_width, self.observation_height
        if not self.shadows:
            # Both are read when the graphics context is created, not when a frame is drawn.
            visual.quality.offsamples = 0
            visual.quality.shadowsize = 0
        try:
            renderer = mujoco.Renderer(self._env.model, self.observation_height, self.observation_width)
        except Exception as error:
            raise RuntimeError(
                f"mujoco could not open a {os.environ.get('MUJOCO_GL', 'default')} graphics context ({error}): set "
                "MUJOCO_GL to another of egl, osmesa, glfw, and see that its library is installed (Debian: libegl1, "
                "libosmesa6)"
            ) from error
        if not self.shadows:
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return renderer

    def render(self) -> np.ndarray:
        """The first camera's current observation, (size, size, 3) uint8: evaluation videos cost no second drawing."""
        if not self._pixels:
            self.reset()
        return self._pixels[self.cameras[0]]

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        super().close()
        self._env = None
        self._pixels = {}


def _shift_cameras(model: mujoco.MjModel, degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])  # quaternion w, x, y, z
    centre = np.array([*WORKSPACE_CENTRE, 0])
    for name in FIXED_CAMERAS if degrees else ():
        camera = model.camera(name)
        position, orientation = np.empty(3), np.empty(4)
        mujoco.mju_rotVecQuat(position, camera.pos - centre, turn)
        mujoco.mju_mulQuat(orientation, turn, camera.quat)
        camera.pos, camera.quat = position + centre, orientation


def _subtree(model: mujoco.MjModel, root: str) -> np.ndarray:
    """(bodies,) bool: the body of this name and everything that hangs on it."""
    inside = np.zeros(model.nbody, bool)
    for i, parent in enumerate(model.body_parentid):  # parents come first
        inside[i] = inside[parent] or model.body(i).name == root
    return inside


def _change_body(model: mujoco.MjModel, body: str) -> None:
    """Change how the robot above its gripper is drawn. Call it before a renderer is made, which copies the meshes."""
    root = "base" if body == "hidden" else "right_arm_base_link"  # with its pedestal or without
    robot = _subtree(model, root)  # (bodies,)
    robot &= ~_subtree(model, "right_hand")
    geoms = robot[model.geom_bodyid]  # (geoms,)
    if body == "hidden":
        model.geom_rgba[geoms, 3] = 0
        model.site_rgba[robot[model.site_bodyid], 3] = 0
    elif body == "recoloured":
        model.geom_rgba[geoms, :3] = RECOLOURED
    elif body == "rescaled":
        # Meshes that collide with something keep their shape.
        solid = (model.geom_contype | model.geom_conaffinity).astype(bool)
        for i in np.flatnonzero(geoms & ~solid & (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)):
            mesh = model.geom_dataid[i]
            first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
            vertices = model.mesh_vert[first : first + count]
            first, count = model.mesh_normaladr[mesh], model.mesh_normalnum[mesh]
            normals = model.mesh_normal[first : first + count]
            scale = np.full(3, RESCALED)
            scale[model.geom_size[i].argmax()] = 1  # along the link
            vertices *= scale
            normals /= scale
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)


# A renderer left open at exit makes mujoco print tracebacks, because it ends the display before its contexts. Exit
# hooks run last in, first out, so this one is registered after mujoco's own, that is after the first renderer.
_open_renderers: weakref.WeakSet[mujoco.Renderer] = weakref.WeakSet()


@cache
def _close_renderers_at_exit() -> None:
    atexit.register(lambda: [renderer.close() for renderer in _open_renderers])


def create_metaworld_envs(
    suites: dict[str, list[str]], n_envs: int, gym_kwargs: dict[str, Any], use_async_envs: bool = False
) -> dict[str, dict[int, gym.vector.VectorEnv]]:
    """`{suite: {task_id: vector environment of n_envs copies}}`, the shape that LeRobot's `make_env` returns.

    Args:
        suites: `{suite: [task name, ...]}`; the task id is the place in the list.
        n_envs: Number of episodes that run side by side per task.
        gym_kwargs: Arguments of `LawmMetaworldEnv`.
        use_async_envs: Use one process per copy (from two copies on), started when the task's turn comes.
    """
    use_async = use_async_envs and n_envs > 1
    if use_async:
        # Workers are forked from a server that has imported this module once, instead of each importing it.
        multiprocessing.set_forkserver_preload([__name__])

    def vectorize(task: str) -> gym.vector.VectorEnv:
        factories = [partial(LawmMetaworldEnv, task, **gym_kwargs)] * n_envs
        if use_async:
            return _LazyAsyncVectorEnv(factories)
        return gym.vector.SyncVectorEnv(
            [freeze_after_episode_end(factory) for factory in factories],
            autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP,
        )

    return {suite: {i: vectorize(task) for i, task in enumerate(tasks)} for suite, tasks in suites.items()}

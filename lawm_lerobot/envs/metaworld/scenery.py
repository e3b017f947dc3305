"""The scene of a Meta-World task as it is drawn: what stands about, where the cameras are, in which light.

Nothing here changes the simulation: a seed's states, rewards and success stay.
"""

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from lawm_lerobot.envs.metaworld.configuration import FIXED_CAMERAS, varied_distractors

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

# The most that a variation of 1 changes, to either side.
VARIED_TURN = 10.0  # degrees
VARIED_LIGHT = 0.3  # of each colour channel

RECOLOURED = (0.1, 0.25, 0.7)  # in place of Sawyer's red
RESCALED = 1.5  # thickness of the links; their length stays. Thinner ones come apart at the joints


@dataclass(frozen=True)
class Scenery:
    """The part of a scene that may differ from one episode to the next.

    Args:
        distractors: The arguments of `mujoco.mjv_initGeom` for each thing that has no part in the task.
        camera_turn: Angle in degrees by which the fixed cameras are turned beyond the environment's `camera_shift`.
        light: The factor of each colour channel of every picture, (3,) float32, or None for none.
    """

    distractors: tuple[tuple, ...] = ()
    camera_turn: float = 0.0
    light: np.ndarray | None = None


def draw_scenery(env: Any, random: np.random.Generator, distractors: int, variation: float) -> Scenery:
    """Draw the scenery of an episode.

    A variation v adds round(8 v) distractors, turns the fixed cameras by up to 10 v degrees to either side, about the
    vertical axis through the workspace's centre, and multiplies each colour channel by a factor of its own between
    1 - 0.3 v and 1 + 0.3 v. The same generator gives the same directions at every v.

    Args:
        env: Meta-World's environment after a reset; its geometry says where there is room.
        random: The generator to draw from. Two in the same state give the same scenery.
        distractors: Number of distractors without variation.
        variation: v, from 0 to 1.
    """
    placed = _place_distractors(env, random, distractors + varied_distractors(variation))
    if not variation:
        return Scenery(placed)
    random = random.spawn(1)[0]  # whose numbers do not depend on how many distractors there are
    return Scenery(
        placed,
        camera_turn=variation * random.uniform(-VARIED_TURN, VARIED_TURN),
        light=(1 + variation * random.uniform(-VARIED_LIGHT, VARIED_LIGHT, size=3)).astype(np.float32),
    )


# ---- distractors --------------------------------------------------------------------------------------------------


def _place_distractors(env: Any, random: np.random.Generator, count: int) -> tuple[tuple, ...]:
    taken = _taken_places(env)
    distractors: list[tuple] = []
    for _ in range(count):
        size = random.uniform(0.015, 0.03)  # half the width
        trials = random.uniform(*DISTRACTOR_AREA, size=(DISTRACTOR_TRIALS, 2))  # (trials, 2)
        gaps = np.linalg.norm(trials[:, None] - taken[:, :2], axis=-1) - taken[:, 2] - 1.5 * size
        # The first free one or, if there is none, the one with the least overlap.
        place = trials[np.minimum(gaps.min(axis=1), 0).argmax()]
        taken = np.vstack([taken, [*place, 1.5 * size]])
        shape = DISTRACTOR_SHAPES[random.integers(len(DISTRACTOR_SHAPES))]
        rgba = np.array([*DISTRACTOR_COLOURS[random.integers(len(DISTRACTOR_COLOURS))], 1], np.float32)
        position, rotation = np.array([*place, _table_height(env, place) + size]), np.eye(3).ravel()
        distractors.append((shape, np.full(3, size), position, rotation, rgba))
    return tuple(distractors)


def _table_height(env: Any, place: np.ndarray) -> float:
    """Height in metres of the table as it is drawn: 0, or 0.05 in the tasks whose table has a hole."""
    start = 0.1  # metres, below the hand
    position, down = np.array([*place, start]), np.array([0.0, 0, -1])
    groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # those that are drawn
    return start - mujoco.mj_ray(env.model, env.data, position, down, groups, 1, -1, np.empty(1, np.int32))


def _taken_places(env: Any) -> np.ndarray:
    """(n, 3): x, y and radius in metres of the task's objects, and of the way from the object to the goal."""
    model, data = env.model, env.data
    roots = model.body_rootid[model.geom_bodyid]  # (geoms,)
    geoms = [i for i, root in enumerate(roots) if root and model.body(root).name not in SCENE_BODIES]
    objects = np.column_stack([data.geom_xpos[geoms, :2], model.geom_rbound[geoms]])
    way = np.linspace(env.obj_init_pos[:2], env._target_pos[:2], 9)
    return np.vstack([objects, np.column_stack([way, np.full(len(way), 0.05)])])


# ---- cameras ------------------------------------------------------------------------------------------------------


def turn_cameras(model: mujoco.MjModel, degrees: float) -> None:
    """Turn the fixed cameras about the vertical axis through the workspace's centre, anticlockwise from above."""
    angle = np.radians(degrees)
    turn = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])  # quaternion w, x, y, z
    centre = np.array([*WORKSPACE_CENTRE, 0])
    for name in FIXED_CAMERAS if degrees else ():
        camera = model.camera(name)
        position, orientation = np.empty(3), np.empty(4)
        mujoco.mju_rotVecQuat(position, camera.pos - centre, turn)
        mujoco.mju_mulQuat(orientation, turn, camera.quat)
        camera.pos, camera.quat = position + centre, orientation


def zoom_cameras(model: mujoco.MjModel, zoom: float) -> None:
    """Make everything in the fixed cameras' pictures `zoom` times as large; the pictures' centres stay."""
    for name in FIXED_CAMERAS if zoom != 1 else ():
        camera = model.camera(name).id
        half_height = np.tan(np.radians(model.cam_fovy[camera]) / 2) / zoom  # of the picture, one metre away
        model.cam_fovy[camera] = np.degrees(2 * np.arctan(half_height))


# ---- the arm ------------------------------------------------------------------------------------------------------


def _subtree(model: mujoco.MjModel, root: str) -> np.ndarray:
    """(bodies,) bool: the body of this name and everything that hangs on it."""
    inside = np.zeros(model.nbody, bool)
    for i, parent in enumerate(model.body_parentid):  # parents come first
        inside[i] = inside[parent] or model.body(i).name == root
    return inside


def change_body(model: mujoco.MjModel, body: str) -> None:
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

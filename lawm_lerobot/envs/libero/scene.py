"""A LIBERO scene's simulation: seen by the expert, with fresh placements and without shadows."""

from collections.abc import Callable
from typing import Any

import numpy as np
from libero.libero.envs.env_wrapper import ControlEnv

from lawm_lerobot.envs.libero.expert import PickAndPlace, Poses
from lawm_lerobot.envs.libero.grasping import choose_grasp
from lawm_lerobot.envs.libero.placements import BASKET, FLOOR, Area, draw_places

NEAR = 0.2  # metres from a thing, within which others may be in the gripper's way
RIM = 0.18  # metres, 4 cm above the basket's


class Scene(ControlEnv):
    """LIBERO's simulation of one task.

    Args:
        spread: How far things are moved at a reset, see `draw_places`; 0 leaves them where LIBERO has put them.
        shadows: Render shadows and 4x multisampling, as LIBERO does.
        draw: False simulates without pictures.
        arguments: Those of LIBERO's `ControlEnv`.
    """

    def __init__(self, *, spread: float, shadows: bool, draw: bool, **arguments: Any) -> None:
        super().__init__(has_offscreen_renderer=draw, use_camera_obs=draw, **arguments)
        self.spread = spread
        self._random = np.random.default_rng()
        if not shadows:
            # Read when the graphics context is made, which each reset does anew.
            self.env.set_xml_processor(_without_shadows)

    def seed(self, seed: int | None) -> None:
        super().seed(seed)
        self._random = np.random.default_rng(seed)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, dict[str, Any]]:
        self._use_own_graphics()
        return super().step(action)

    def regenerate_obs_from_state(self, mujoco_state: np.ndarray) -> dict[str, Any]:
        self._use_own_graphics()
        return super().regenerate_obs_from_state(mujoco_state)

    def close(self) -> None:
        self._use_own_graphics()
        super().close()

    def _use_own_graphics(self) -> None:
        """Draw, and free, in this scene's own graphics context.

        robosuite takes the one that was made last, so two tasks in one process would have each other's textures, and
        none after one of them is closed.
        """
        if self.sim._render_context_offscreen is not None:
            self.sim._render_context_offscreen.gl_ctx.make_current()

    def reset(self) -> dict[str, Any]:
        self._use_own_graphics()
        observation = super().reset()
        if not self.spread:
            return observation
        areas = {name: self._area(name) for name in sorted(self.env.objects_dict, key=self._order)}
        for name, place in draw_places(self._random, areas, self.spread).items():
            joint = self.env.objects_dict[name].joints[-1]
            pose = self.sim.data.get_joint_qpos(joint).copy()  # (7,): position and quaternion
            pose[:2] += np.array(place) - areas[name].place
            self.sim.data.set_joint_qpos(joint, pose)
        return self.regenerate_obs_from_state(self.get_sim_state())

    def expert(self) -> Callable[[], np.ndarray]:
        """An expert for the task's thing, which takes it from where it stands: each call is its next action, (7,)."""
        thing = self._collision_points(self._thing)
        others = [name for name in self.env.objects_dict if name != self._thing]
        neighbours = np.concatenate([self._collision_points(name, 5) for name in others])
        middle = (thing.min(axis=0) + thing.max(axis=0)) / 2
        near = np.linalg.norm((neighbours - middle)[:, :2], axis=1) < NEAR
        left, right = (self._position(f"gripper0_{side}finger") for side in ("left", "right"))
        closing = np.arctan2(*(right - left)[1::-1])
        # The middle moves with the thing; its offset from the body's origin does not.
        offset = self._rotation(self._thing).T @ (middle - self._position(f"{self._thing}_main"))
        expert = PickAndPlace(choose_grasp(thing, neighbours[near], closing), self._poses(offset), RIM)
        return lambda: expert.act(self._poses(offset))

    def _poses(self, offset: np.ndarray) -> Poses:
        """The present poses; the offset, (3,), leads from the origin of the thing's body to its middle."""
        data = self.sim.data
        site = self.sim.model.site_name2id(self.robots[0].controller.eef_name)
        return Poses(
            hand=data.site_xpos[site].copy(),
            rotation=data.site_xmat[site].reshape(3, 3).copy(),
            thing=self._position(f"{self._thing}_main") + self._rotation(self._thing) @ offset,
            place=self._position(f"{self._place}_main"),
        )

    # ---- the simulation's names and shapes ------------------------------------------------------------------------

    @property
    def _thing(self) -> str:
        return self.obj_of_interest[0]

    @property
    def _place(self) -> str:
        return self.obj_of_interest[1]

    def _order(self, name: str) -> tuple[bool, bool, str]:
        """The basket first and then the task's thing, so that the others make room for them."""
        return name != self._place, name != self._thing, name

    def _area(self, name: str) -> Area:
        points = self._collision_points(name)[:, :2]
        low, high = points.min(axis=0), points.max(axis=0)
        place = (low + high) / 2
        radius = float(np.linalg.norm(high - low)) / 2
        return Area((float(place[0]), float(place[1])), radius, BASKET if name == self._place else FLOOR)

    def _position(self, body: str) -> np.ndarray:
        return self.sim.data.get_body_xpos(body).copy()

    def _rotation(self, thing: str) -> np.ndarray:
        return self.sim.data.get_body_xmat(f"{thing}_main").reshape(3, 3).copy()

    def _collision_points(self, thing: str, number: int = 2) -> np.ndarray:
        """(n, 3): a grid of number^3 points in the box around each of a thing's collision shapes, in the world."""
        model, data = self.sim.model._model, self.sim.data._data
        sides = np.linspace(-1, 1, number)
        grid = np.stack(np.meshgrid(sides, sides, sides), axis=-1).reshape(-1, 3)
        body = self.sim.model.body_name2id(f"{thing}_main")
        solid = (model.geom_contype | model.geom_conaffinity).astype(bool)
        points = []
        for geom in np.flatnonzero((model.geom_bodyid == body) & solid):
            middle, half = np.split(model.geom_aabb[geom], 2)
            points.append(
                data.geom_xpos[geom] + (middle + grid * half) @ data.geom_xmat[geom].reshape(3, 3).T
            )
        return np.concatenate(points)


def _without_shadows(xml: str) -> str:
    return xml.replace(
        "<worldbody>", '<visual><quality shadowsize="0" offsamples="0"/></visual><worldbody>', 1
    )

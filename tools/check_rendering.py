"""Render one small MuJoCo image off-screen with the backend named by MUJOCO_GL; exit non-zero if that fails."""

import mujoco

SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="sphere" size="0.5" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>
"""


def main() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = mujoco.Renderer(model, height=32, width=32)
    renderer.update_scene(data)
    image = renderer.render()
    renderer.close()
    # A driver can hand out a context and still draw nothing.
    if not image.any():
        raise SystemExit("the rendered image is black")


if __name__ == "__main__":
    main()

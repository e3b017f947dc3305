"""High dynamic range made standard: pictures in PQ or HLG, as phones record them, become BT.709.

Each pixel's light is worked out (ITU-R BT.2100), in cd/m²; light above the white of a screen is compressed and light below
about half of it is kept (the EETF of ITU-R BT.2390, for a peak of `PEAK` and a screen of `WHITE`); the colour is brought
from BT.2020's primaries to BT.709's, where colours outside are clipped, and encoded for a screen of BT.1886. So the grey
card and the white that BT.2408 names for HDR come out where a camera for BT.709 puts them.
"""

from __future__ import annotations

from functools import cache

import numpy as np

#: FFmpeg's numbers of the transfer characteristics, as in ITU-T H.273.
PQ, HLG = 16, 18
#: The brightest light of the source, which HLG is defined for and phones record up to, and BT.2408's white; cd/m².
PEAK, WHITE = 1000.0, 203.0
HLG_GAMMA = 1.2  # of the screen of 1000 cd/m² (BT.2100)
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's red, green and blue
BT2020_TO_BT709 = np.array(  # ITU-R BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
DISPLAY_GAMMA = 2.4  # BT.1886
FULL_CODE = 255 * 256  # where FFmpeg's scaler puts the end of the narrow range in 16 bits


def is_high_dynamic_range(transfer: int) -> bool:
    """True if light is stored so that `to_standard` is needed; `transfer` is a number of H.273."""
    return transfer in (PQ, HLG)


def to_standard(image: np.ndarray, transfer: int) -> np.ndarray:
    """(h, w, 3) uint16 RGB of BT.2020 in full range, PQ or HLG -> (h, w, 3) uint8 RGB of BT.709."""
    light = _light_of_codes(transfer)[image]  # (h, w, 3), cd/m²; for HLG the scene's, up to PEAK
    if transfer == HLG:
        light *= ((light @ LUMINANCE) / PEAK)[..., None] ** (HLG_GAMMA - 1)
    # The brightest colour sets the factor for all three, which keeps the hue.
    brightest = light.max(axis=2).clip(1e-4, PEAK)  # (h, w)
    light *= (np.interp(brightest, *_compression()) / brightest / WHITE).astype(np.float32)[..., None]
    shown = (light @ BT2020_TO_BT709.T).clip(0, 1) ** (1 / DISPLAY_GAMMA)
    return (shown * 255).round().astype(np.uint8)


@cache
def _light_of_codes(transfer: int) -> np.ndarray:
    """(65536,) float32: the light for each code of 16 bits."""
    code = (np.arange(65536) / FULL_CODE).clip(0, 1)
    return (_pq_light(code) if transfer == PQ else PEAK * _hlg_scene(code)).astype(np.float32)


def _hlg_scene(code: np.ndarray) -> np.ndarray:
    """Inverse of HLG's transfer function: codes in [0, 1] -> light of the scene in [0, 1]."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)


M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _pq_light(code: np.ndarray) -> np.ndarray:
    """PQ's transfer function: codes in [0, 1] -> light in cd/m², up to 10,000."""
    root = code ** (1 / M2)
    return 10_000 * (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)


def _pq_code(light: np.ndarray) -> np.ndarray:
    """Inverse of `_pq_light`."""
    root = (light / 10_000) ** M1
    return ((C1 + C2 * root) / (1 + C3 * root)) ** M2


@cache
def _compression() -> tuple[np.ndarray, np.ndarray]:
    """BT.2390's EETF: light of the source, up to `PEAK`, and of the screen, up to `WHITE`; (1025,) each, in cd/m²."""
    peak = _pq_code(np.array(PEAK))
    code = np.linspace(0, 1, 1025)  # BT.2390's E1, 1 at the source's peak
    white = _pq_code(np.array(WHITE)) / peak  # its maxLum
    knee = 1.5 * white - 0.5
    t = ((code - knee) / (1 - knee)).clip(0, 1)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * white
    )
    return _pq_light(code * peak), _pq_light(np.where(code < knee, code, spline) * peak)

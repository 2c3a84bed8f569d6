"""Converts the colours of other displays to those that screens and browsers expect: sRGB (IEC 61966-2-1).

High dynamic range (ITU-R BT.2100: PQ, HLG) becomes standard range as BT.2408 advises: its reference white of
203 cd/m² is the white of the screen. Light that is nearly so bright, or brighter, is compressed, in all channels alike,
so that hues stay. FFmpeg's own conversion in libswscale cuts brighter light off, and takes seconds for its tables.
"""

from __future__ import annotations

from typing import Any

import pyvips

PQ, HLG = 16, 18
"""Transfer characteristics, by their numbers in ITU-T H.273, which HEIF, FFmpeg and all codecs use."""
_TO_BT709 = {
    9: [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008350], [-0.018151, -0.100579, 1.118730]],
    12: [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]],
}
"""Linear light of other primaries (H.273: 9 is BT.2020, 12 Display P3) -> that of BT.709, whose primaries sRGB has."""
_WHITE, _PEAK, _KNEE = 203, 1000, 0.8
"""Reference white and HLG's nominal peak in cd/m²; the share of white above which light is compressed."""


def needs_conversion(transfer: int, primaries: int) -> bool:
    """Whether pixels with these numbers of H.273 would look wrong if they were taken for sRGB."""
    return transfer in (PQ, HLG) or primaries in _TO_BT709


def to_srgb(image: Any, transfer: int, primaries: int) -> Any:
    """Convert an image of 8 or 16 bits, grey or colour, maybe with alpha, to 8 bits. Numbers are those of H.273."""
    if image.format == "uchar":
        image = (image.cast("ushort") * 257).cast("ushort")
    if image.bands < 3:
        image = image[0].bandjoin([image[0], *(image[band] for band in range(image.bands))])
    light = _light(image.extract_band(0, n=3), transfer)
    if primaries in _TO_BT709:
        light = light.recomb(pyvips.Image.new_from_array(_TO_BT709[primaries]))
    if transfer in (PQ, HLG):
        light = _compressed(light)
    shown = light.copy(interpretation="scrgb").colourspace("srgb").cast("uchar")
    return shown.bandjoin((image[3] >> 8).cast("uchar")) if image.bands == 4 else shown


def _light(image: Any, transfer: int) -> Any:
    """Linear light, as a share of reference white, by the tables of BT.2100; any other transfer is taken for sRGB."""
    if transfer == PQ:
        return image.maplut(_pq())
    if transfer == HLG:
        scene = image.maplut(_hlg())
        luminance = scene.recomb(pyvips.Image.new_from_array([[0.2627, 0.6780, 0.0593]]))
        return scene * (luminance**0.2) * (_PEAK / _WHITE)
    return image.copy(interpretation="rgb16").colourspace("scrgb")


def _signal() -> Any:
    return pyvips.Image.identity(ushort=True).cast("float") / 65535


def _pq() -> Any:
    """BT.2100-2, table 4: from a signal of 16 bits to light."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = _signal() ** (1 / m2)
    above = power - c1
    return ((above > 0).ifthenelse(above, 0) / (c2 - power * c3)) ** (1 / m1) * (10_000 / _WHITE)


def _hlg() -> Any:
    """BT.2100-2, table 5: from a signal of 16 bits to the light of the scene."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = _signal()
    return (signal <= 0.5).ifthenelse(signal * signal / 3, (((signal - c) / a).exp() + b) / 12)


def _compressed(light: Any) -> Any:
    """Light up to the knee stays; above it follows a curve that begins as steep as before and ends at white."""
    brightest = light[0].bandrank([light[1], light[2]], index=2)
    over = (brightest - _KNEE) / (1 - _KNEE)
    pressed = _KNEE + (1 - _KNEE) * over / (1 + over)
    return (brightest > _KNEE).ifthenelse(light * (pressed / brightest), light)

"""The effective width of volumes blurred by known amounts."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from forward_models import volume_from_image
from tests.conftest import nib_image
from throughplane.studies.resolution import effective_fwhm_mm

SHAPE = (48, 52, 80)


def texture() -> np.ndarray:
    """A random field without preferred direction, rough as heads are: power falls as frequency ** -3."""
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in SHAPE), indexing="ij")))
    white = np.fft.fftn(np.random.default_rng(0).normal(size=SHAPE))
    field = np.fft.ifftn(white * np.maximum(frequency, 0.03) ** -1.5).real
    return (500 + 100 * field / field.std()).astype(np.float32)


TEXTURE = texture()


def width(fwhm_mm: float, axis: int = 2) -> float | None:
    data = gaussian_filter1d(TEXTURE, fwhm_mm / 2.3548, axis=axis, mode="wrap") if fwhm_mm else TEXTURE
    return effective_fwhm_mm(volume_from_image(nib_image(data)), axis)


def test_wider_blur_gives_wider_slices_about_as_wide_as_it_is():
    """A linear basis and the thin slice itself add 1.9 mm in squares; the shape of the profile is unknown."""
    widths = [width(mm) for mm in (0, 2, 4.5, 7)]
    assert None not in widths
    assert widths == sorted(widths)
    assert widths[0] < 1.4
    assert widths[1:] == pytest.approx([np.sqrt(mm**2 + 1.9) for mm in (2, 4.5, 7)], rel=0.2)


def test_the_axis_is_the_one_asked_for():
    data = gaussian_filter1d(TEXTURE, 4 / 2.3548, axis=0, mode="wrap")
    volume = volume_from_image(nib_image(data))
    assert effective_fwhm_mm(volume, 0) == pytest.approx(np.sqrt(4**2 + 1.9), rel=0.2)
    along_another = effective_fwhm_mm(volume, 2)
    assert along_another is None or along_another < 2


def test_a_volume_without_structure_has_none():
    assert effective_fwhm_mm(volume_from_image(nib_image(np.full(SHAPE, 7, np.float32))), 2) is None

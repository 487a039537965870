"""In-plane interpolation by the scanner is found where it is, nowhere else, and undone exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forward_models import Box, Gaussian, InputRefused, Sidecar, Source, Volume, acquisition_of, volume_from_image
from forward_models.acquisition import read_sidecar
from forward_models.in_plane import edge_along, with_in_plane
from forward_models.resample import band_limited_weights
from forward_models.stack import stack_of
from tests.conftest import head_phantom, oblique_affine, placed_image

FILTERS = {
    "none": lambda k: np.ones_like(k),
    "hann": lambda k: np.cos(np.pi / 2 * k) ** 2,
    "hamming": lambda k: 0.54 + 0.46 * np.cos(np.pi * k),
    "fermi": lambda k: 1 / (1 + np.exp((k - 0.9) / 0.03)),
}


def head(shape=(128, 121, 6)) -> np.ndarray:
    """Slices of a head with the noise of both channels, complex; odd and even sizes."""
    rng = np.random.default_rng(0)
    sharp = head_phantom(shape) * (1 + 0.1 * rng.normal(size=shape))
    return sharp + 5 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))


def zero_filled(image: np.ndarray, axis: int, factor: float, name: str = "none") -> np.ndarray:
    """The complex image whose k-space along one axis is filtered and filled up with zeros."""
    count = image.shape[axis]
    more = round(count * factor) - count
    weight = FILTERS[name](np.abs(np.fft.fftshift(np.fft.fftfreq(count))) * 2)
    spectrum = np.fft.fftshift(np.fft.fft(image, axis=axis), axes=axis)
    spectrum = np.moveaxis(np.moveaxis(spectrum, axis, -1) * weight, -1, axis)
    before = (count + more) // 2 - count // 2
    widths = [(before, more - before) if i == axis else (0, 0) for i in range(image.ndim)]
    return np.fft.ifft(np.fft.ifftshift(np.pad(spectrum, widths), axes=axis), axis=axis) * (1 + more / count)


def stored(image: np.ndarray) -> np.ndarray:
    """Magnitudes as a scanner stores them."""
    return np.round(np.abs(image)).astype(np.int16)


def scan_of(data: np.ndarray, voxel_mm=(0.5, 0.5, 5.0)) -> Volume:
    return volume_from_image(placed_image(data, oblique_affine(voxel_mm)))


# ---- where the spectrum ends ----


@pytest.mark.parametrize("factor", [1.2, 1.5, 2.0])
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("axis", [0, 1])
def test_zero_filling_is_found(factor, name, axis):
    """To 10 %: a filter sinks into what the magnitude leaves beyond before it ends, a window smears a sharp end."""
    filled = zero_filled(zero_filled(head(), axis, factor, name), 1 - axis, 1.3, name)
    edges = [edge_along(stored(filled).astype(np.float32), i) for i in (0, 1)]
    assert min(edge.strength for edge in edges) > 70
    assert edges[axis].ratio * factor == pytest.approx(1, abs=0.1)
    assert edges[1 - axis].ratio * 1.3 == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: np.abs(x),
        lambda x: np.abs(zero_filled(x, 0, 1.0, "hann")),
        lambda x: np.abs(zero_filled(zero_filled(x, 0, 1.0, "fermi"), 1, 1.0, "fermi")),
        lambda x: np.where(np.abs(x) > 100, np.abs(x), 0),
        lambda x: np.abs(x) / 8,
        lambda x: np.abs(x)[20:-20, 10:-30],
        lambda x: np.abs(np.random.default_rng(1).normal(size=x.shape)) * 1000,
        lambda x: np.full(x.shape, 7.0),
    ],
    ids=[
        "as it is",
        "Hann to Nyquist",
        "Fermi to Nyquist",
        "masked",
        "few grey levels",
        "cropped",
        "noise",
        "constant",
    ],
)
def test_nothing_is_found_where_nothing_was_filled(make):
    slices = stored(make(head())).astype(np.float32)
    assert max(edge_along(slices, 0).strength, edge_along(slices, 1).strength) < 70


@pytest.mark.parametrize(("drop_db", "is_found"), [(4, False), (20, True)])
def test_a_step_in_power_is_no_end_of_it(drop_db, is_found):
    """Frequencies beyond 0.6 attenuated: what is left of them with 4 dB less is still detail."""
    spectrum = np.fft.fft(head(), axis=0)
    outer = np.abs(np.fft.fftfreq(128)) * 2 > 0.6
    spectrum[outer] *= 10 ** (-drop_db / 20)
    edge = edge_along(stored(np.fft.ifft(spectrum, axis=0)).astype(np.float32), 0)
    assert (edge.strength > 70) == is_found


def test_small_images_tell_nothing():
    assert edge_along(np.abs(zero_filled(head((30, 30, 8)), 0, 2.0)).astype(np.float32), 0).ratio == 1


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("across", [1, 8, 9, 10])
def test_narrow_images_tell_nothing_but_raise_nothing(across, axis):
    slices = head_phantom((64, across, 20))
    edge = edge_along(slices if axis == 0 else slices.transpose(1, 0, 2), axis)
    assert np.isfinite([edge.ratio, edge.strength]).all()
    assert edge.ratio == 1 or across == 10


# ---- what is made of it ----


def found(data: np.ndarray, in_plane_mm="auto", sidecar: Sidecar | None = None, axis=2):
    volume = scan_of(data, tuple(5.0 if i == axis else 0.5 for i in range(3)))
    return with_in_plane(acquisition_of(volume), volume, sidecar or Sidecar(), in_plane_mm)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_true_sizes_come_in_the_order_of_the_file(axis):
    data = np.moveaxis(stored(zero_filled(head(), 0, 1.5)), 2, axis)
    acquisition = found(data, axis=axis)
    assert acquisition.resolved_mm == (pytest.approx(0.75, rel=0.1), pytest.approx(0.5))
    assert acquisition.in_plane_source is Source.ESTIMATE
    assert acquisition.thin_mm == max(acquisition.resolved_mm)


def test_a_sharp_scan_keeps_its_voxels():
    acquisition = found(stored(head()))
    assert (acquisition.resolved_mm, acquisition.in_plane_source) == (acquisition.in_plane_mm, Source.HEADER)
    assert acquisition.notes == found(stored(head()), None).notes


def test_the_sidecar_says_exactly_what_the_spectrum_confirms():
    acquisition = found(stored(zero_filled(head(), 0, 1.5)), sidecar=Sidecar(samples={0: 128, 1: 121}))
    assert acquisition.resolved_mm == pytest.approx((0.75, 0.5))
    assert acquisition.in_plane_source is Source.SIDECAR


def test_a_sidecar_alone_undoes_nothing():
    acquisition = found(stored(head()), sidecar=Sidecar(samples={0: 64}))
    assert acquisition.resolved_mm == acquisition.in_plane_mm
    assert any("says 64 of 128 samples were acquired, the spectrum shows detail" in note for note in acquisition.notes)


@pytest.mark.parametrize(("told", "kept"), [(192, 192), (160, 160), (80, 134)])
def test_where_they_disagree_the_finer_voxels_are_believed(told, kept):
    acquisition = found(stored(zero_filled(head(), 0, 1.5)), sidecar=Sidecar(samples={0: told}))
    assert acquisition.resolved_mm[0] == pytest.approx(0.5 * 192 / kept, rel=0.02)
    assert any(f"says {told} of 192" in note and "the larger number is followed" in note for note in acquisition.notes)


def test_thin_slices_are_no_thicker_than_the_scan_s_own():
    volume = scan_of(stored(zero_filled(head(), 0, 2.0)), (0.5, 0.5, 1.5))
    thick = with_in_plane(acquisition_of(volume, thickness_mm=0.8), volume, Sidecar(), "auto")
    assert max(thick.resolved_mm) > 0.9
    assert thick.thin_mm == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("stated", "expected"), [(0.8, (0.8, 0.8)), ((0.5, 1.0), (0.5, 1.0)), ((0.498, 0.6), (0.5, 0.6))]
)
def test_what_is_stated_is_taken(stated, expected):
    acquisition = found(stored(head()), stated)
    assert acquisition.resolved_mm == pytest.approx(expected)
    assert acquisition.in_plane_source is Source.FLAG


@pytest.mark.parametrize("stated", [0.4, (0.5, 0.1), -1.0, 0.0, float("nan"), float("inf"), (0.5, 9.0)])
def test_impossible_sizes_are_refused(stated):
    with pytest.raises(InputRefused, match=r"--in-plane-mm .*; expected a true voxel size between that of the file"):
        found(stored(head()), stated)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('"BaseResolution": 256, "AcquisitionMatrixPE": 230, "PhaseEncodingDirection": "i"', {0: 230, 1: 256}),
        ('"BaseResolution": 256, "AcquisitionMatrixPE": 230, "PhaseEncodingDirection": "j-"', {0: 256, 1: 230}),
        ('"FrequencyEncodingSteps": 256, "AcquisitionMatrixPE": 203, "PhaseEncodingAxis": "i"', {0: 203, 1: 256}),
        ('"AcquisitionMatrixPE": 203, "InPlanePhaseEncodingDirectionDICOM": "COL"', {1: 203}),
        ('"AcquisitionMatrixPE": 203', {}),
        ('"AcquisitionMatrixPE": 203, "PhaseEncodingDirection": "k"', {}),
        ('"AcquisitionMatrixPE": "many", "BaseResolution": -1, "PhaseEncodingDirection": "i"', {}),
        ('"AcquisitionMatrixPE": [1], "PhaseEncodingDirection": 3', {}),
    ],
)
def test_what_a_sidecar_says_of_samples(tmp_path, content, expected):
    path = tmp_path / "s.json"
    path.write_text("{" + content + "}")
    assert read_sidecar(path).samples == expected


# ---- undoing it ----


def cosine(count: int, cycles: float) -> np.ndarray:
    """At the centres of `count` voxels of one field of view, mirrored at its ends."""
    return np.cos(np.pi * cycles * (np.arange(count) + 0.5) / count)


def keeps_frequencies(weights: np.ndarray) -> bool:
    """Every cosine that both grids can hold arrives as it was, on the same world positions."""
    new, old = weights.shape
    return all(np.abs(weights @ cosine(old, k) - cosine(new, k)).max() < 1e-9 for k in range(min(new, old)))


@pytest.mark.parametrize(("old", "new"), [(24, 17), (17, 24), (31, 16), (20, 20)])
def test_shared_frequencies_are_kept_and_others_cut(old, new):
    weights = band_limited_weights(old, new).numpy()
    assert keeps_frequencies(weights)
    assert all(np.abs(weights @ cosine(old, k)).max() < 1e-9 for k in range(new, old))
    assert weights.sum(axis=1) == pytest.approx(np.ones(new))


@pytest.mark.parametrize("kind", ["linear", "shifted"])
def test_a_broken_twin_is_rejected(kind):
    if kind == "linear":
        at = (np.arange(24) + 0.5) * 17 / 24 - 0.5
        assert not keeps_frequencies(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(17))))
    else:
        assert not keeps_frequencies(np.roll(band_limited_weights(17, 24).numpy(), 1, axis=0))


def test_cutting_undoes_filling():
    there, back = band_limited_weights(17, 24), band_limited_weights(24, 17)
    assert torch.allclose(back @ there, torch.eye(17, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_scanner_s_interpolation_is_undone_whatever_the_order(axes):
    """What was measured is 128 x 121: the interpolated stack is given back but for what magnitudes add."""
    image = zero_filled(head_phantom((128, 121, 8)).astype(complex), 0, 1.5)
    volume = scan_of(np.transpose(np.abs(image).astype(np.float32), axes), tuple(5.0 if i == 2 else 0.5 for i in axes))
    acquisition = with_in_plane(
        acquisition_of(volume, profile=Gaussian(4.0)),
        volume,
        Sidecar(),
        (0.75, 0.5) if axes.index(0) < axes.index(1) else (0.5, 0.75),
    )
    stack = stack_of(volume, acquisition, 0.75)
    measured = stack.as_measured()
    assert sorted(measured.slices.shape) == [8, 121, 128]
    assert measured.in_plane_mm == pytest.approx([0.75 if n == 128 else 0.5 for n in measured.slices.shape[:2]])
    error = (stack.interpolated(measured.slices) - stack.slices).square().mean().sqrt()
    assert error < 0.01
    assert torch.equal(measured.selection.weights, stack.selection.weights)


def test_sharp_stacks_stay_as_they_are():
    volume = scan_of(stored(head()))
    stack = stack_of(volume, acquisition_of(volume, profile=Box(4.0)), 0.5)
    assert torch.equal(stack.as_measured().slices, stack.slices)
    assert stack.as_measured().in_plane_mm == stack.in_plane_mm
    assert replace(stack, resolved=(64, 121)).as_measured().slices.shape == (64, 121, 6)

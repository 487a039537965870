"""Slice profiles have the width they are asked for and integrate to weights without error."""

import json
import re

import numpy as np
import pytest

from forward_models import Box, Gaussian, InputRefused, Sampled, SliceGrid, load_profile, slice_selection, slr
from forward_models.profiles import integrate, thin_to_thick

Z = np.arange(-60, 60, 0.001)
TRIANGLE = Sampled(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0, 1.0, 0.0]))
PROFILES = [Gaussian(4), Box(5), slr(4), TRIANGLE]
by_name = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


@by_name
def test_density_integrates_to_one_and_has_the_stated_width_and_variance(profile):
    density = profile.density(Z)
    assert np.sum(density) * 0.001 == pytest.approx(1, abs=1e-3)
    assert np.sum(density * Z**2) * 0.001 == pytest.approx(profile.variance_mm2, rel=5e-3)
    above = Z[density >= density.max() / 2]
    assert above[-1] - above[0] == pytest.approx(profile.fwhm_mm, abs=0.05)


@by_name
def test_nothing_is_left_beyond_the_half_width(profile):
    outside = np.abs(Z) > profile.half_width_mm
    assert np.sum(profile.density(Z)[outside]) * 0.001 < 1e-12


@by_name
@pytest.mark.parametrize("ratio", [0.3, 2.5])
def test_scaling_scales_width_and_keeps_mass(profile, ratio):
    scaled = profile.scaled(ratio)
    assert scaled.fwhm_mm == pytest.approx(profile.fwhm_mm * ratio)
    assert scaled.variance_mm2 == pytest.approx(profile.variance_mm2 * ratio**2)


@by_name
def test_weights_are_the_integral_of_profile_times_linear_interpolation(profile):
    """Independent oracle: the sum over micrometres."""
    thin = np.array([-1.1, 0.0, 1.1])
    hats = np.maximum(0, 1 - np.abs(Z[:, None] - thin) / 1.1)
    expected = profile.density(Z - 0.3) @ hats * 0.001
    assert integrate(profile, np.array([0.3]), thin)[0] == pytest.approx(expected, abs=2e-4)  # edges of the box


@pytest.mark.parametrize("family", [Gaussian, Box, slr])
@pytest.mark.parametrize("thickness", [2.0, 3.0, 4.4, 8.0])
def test_thin_profile_blurred_by_the_weights_is_the_thick_profile(family, thickness):
    """An impulse in the head is seen through thin slice, linear basis and kernel with the thickness asked for."""
    kernel, thin = thin_to_thick(family(thickness), 1.0), family(1.0)
    total = kernel.variance_mm2 + thin.variance_mm2 + 1 / 6
    assert total == pytest.approx(family(thickness).variance_mm2, rel=1e-9)


def test_an_impulse_returns_the_profile_with_the_asked_width():
    thin = SliceGrid(161, 0.25)
    operator = slice_selection(SliceGrid(141, 0.25), thin, Gaussian(5.0))
    response = operator.weights[:, 80].numpy()  # what slices 0.25 mm apart see of one thin slice
    above = response >= response.max() / 2
    assert above.sum() * 0.25 == pytest.approx(5.0, abs=0.25)


def test_the_shipped_pulse_lies_between_box_and_gaussian():
    excess = [p.variance_mm2 for p in (Box(1.0), slr(1.0), Gaussian(1.0))]
    assert excess == sorted(excess)
    assert slr(1.0).density(np.array([0.0, 0.25])) == pytest.approx([1.0, 1.0], abs=0.05)  # flat top


def test_profiles_are_read_from_json_and_npy(tmp_path):
    offsets, weights = np.linspace(-3, 3, 25), np.exp(-(np.linspace(-3, 3, 25) ** 2))
    (tmp_path / "p.json").write_text(json.dumps({"offsets_mm": offsets.tolist(), "weights": weights.tolist()}))
    np.save(tmp_path / "p.npy", np.stack([offsets, weights], axis=1))
    from_json, from_npy = load_profile(tmp_path / "p.json"), load_profile(tmp_path / "p.npy")
    assert from_json.fwhm_mm == pytest.approx(2 * np.sqrt(np.log(2)), abs=0.02)
    assert from_npy.weights == pytest.approx(from_json.weights)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", "{", "not a slice profile"),
        ("p.json", '{"weights": [1, 2, 1]}', "not a slice profile"),
        ("p.json", "[1, 2]", "not a slice profile"),
        ("p.json", '{"offsets_mm": [-1, 0, 1], "weights": [1, 2]}', "differ"),
        ("p.json", '{"offsets_mm": [-1, 0, 1], "weights": [1, -2, 1]}', "non-negative"),
        ("p.json", '{"offsets_mm": [-1, 0, 1], "weights": [1, 2, 3]}', "symmetric"),
        ("p.json", '{"offsets_mm": [-1, 0, 2], "weights": [1, 2, 1]}', "increase evenly"),
        ("p.json", '{"offsets_mm": [0, 1], "weights": [1, 1]}', "at least 3"),
        ("p.json", '{"offsets_mm": [-1, 0, 1], "weights": [1, NaN, 1]}', "finite"),
        ("p.json", '{"offsets_mm": [-1, 0, 1], "weights": [1, 1' + 400 * "0" + ", 1]}", "not a slice profile"),
        ("p.json", '{"offsets_mm": [-1, 0, 1], "weights": [1e308, 1e308, 1e308]}', "sum of its weights must be finite"),
        ("p.json", '{"offsets_mm": [-1e308, 0, 1e308], "weights": [1, 2, 1]}', "must be finite"),
        ("p.txt", "1 2 1", "expected gaussian, box, slr, .json"),
        ("p.npy", "not numpy", "not a slice profile"),
        ("p.npy", "", "not a slice profile"),
    ],
)
def test_what_is_not_a_profile_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputRefused, match=message):
        load_profile(tmp_path / name)


@pytest.mark.parametrize("shape", [(2, 25), (50,), (25, 2, 1), ()], ids=str)
def test_an_array_of_another_shape_is_refused(tmp_path, shape):
    np.save(tmp_path / "p.npy", np.ones(shape))
    expected = rf"\(an array of shape {re.escape(str(shape))}\); expected .* of shape \(n, 2\)"
    with pytest.raises(InputRefused, match=expected):
        load_profile(tmp_path / "p.npy")


@pytest.mark.parametrize("kept", [None, 40], ids=["whole", "truncated"])
def test_an_archive_under_another_name_is_refused(tmp_path, kept):
    np.savez(tmp_path / "p.npz", np.ones((25, 2)))
    (tmp_path / "p.npy").write_bytes((tmp_path / "p.npz").read_bytes()[:kept])
    with pytest.raises(InputRefused, match="not a slice profile"):
        load_profile(tmp_path / "p.npy")


def test_a_pickled_profile_is_refused_and_a_missing_one_named(tmp_path):
    np.save(tmp_path / "p.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(InputRefused, match="not a slice profile"):
        load_profile(tmp_path / "p.npy")
    with pytest.raises(InputRefused, match="does not exist"):
        load_profile(tmp_path / "missing.json")


@pytest.mark.parametrize("width", [0.0, -3.0, float("nan"), float("inf")])
@pytest.mark.parametrize("family", [Gaussian, Box, slr])
def test_a_width_that_is_none_is_refused(family, width):
    with pytest.raises(InputRefused, match="positive number of mm"):
        family(width)

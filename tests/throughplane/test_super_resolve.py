"""`throughplane.super_resolve`: geometry, physics and promises of the whole way from a scan to a thin volume."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import eclare
import throughplane
from forward_models import Gaussian, SliceGrid, slice_selection
from tests.conftest import head_phantom, oblique_affine, save
from throughplane import FlagConflict, InputRefused
from throughplane.pipeline import How, plan
from throughplane.profile import with_thickness_found
from throughplane.reading import Acquired, read_scan, read_scans

OUTPUT_ROUNDING = 1e-6  # float32: 6e-8 per operation, some ten terms per voxel, relative to the largest value
OVERLAY_MM = 1e-3
HEADER_ROUNDING_MM = 1e-4  # affines are float32 in a NIfTI header: 2e-5 mm at 200 mm, for each of a few terms
METHODS = ("cubic", "inverse", "smore", "eclare")

# thickness|gap in mm, all back to 1 mm: a gap, none, and factors that are no whole numbers
ACQUISITIONS = [(3.0, 0.0), (5.0, 1.5), (1.5, 0.0), (2.3, 0.0), (4.4, 0.0)]


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Preset `fast` trains a network of a few hundred weights for three steps."""
    config = replace(eclare.PRESETS["fast"], steps=3, channels=4, blocks=1)
    monkeypatch.setattr(eclare, "PRESETS", {**eclare.PRESETS, "fast": config})


def upsample(data: np.ndarray, affine: np.ndarray, method: str = "cubic", **arguments) -> throughplane.Result:
    """`super_resolve` of an array, with the tiny preset where one is needed."""
    preset = "fast" if method in ("eclare", "smore") else None
    return throughplane.super_resolve(nib.Nifti1Image(data, affine), method=method, preset=preset, **arguments)


def world(image: nib.Nifti1Image) -> np.ndarray:
    """World position in mm of every voxel, (i, j, k, 3)."""
    return positions(image.shape, image.affine)


def positions(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return indices @ affine[:3, :3].T + affine[:3, 3]


def on_axis(axis: int, along: float, across: float) -> tuple[float, float, float]:
    """Three values, `along` at the slice axis and `across` elsewhere."""
    return tuple(along if i == axis else across for i in range(3))


# ---- constants and ramps ----


def ramp_error(method: str, thickness: float, gap: float, axis: int, direction: str) -> tuple[np.ndarray, float]:
    """Error in mm of a ramp of one unit per mm that went through a method, slices last; and its largest value.

    Without a direction, of a constant.
    """
    affine = oblique_affine(on_axis(axis, thickness + gap, 1.0))
    shape = tuple(int(n) for n in on_axis(axis, 14, 16))
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    normal = {"": np.zeros(3), "through": unit[:, axis], "in plane": unit[:, axis - 1]}[direction]
    level = 50.0 - positions(shape, affine)[0, 0, 0] @ normal
    result = upsample(
        (level + positions(shape, affine) @ normal).astype(np.float32),
        affine,
        method,
        thickness_mm=thickness,
        spacing_mm=1.0,
    )
    expected = level + world(result.image) @ normal
    return np.moveaxis(result.image.get_fdata() - expected, axis, -1), float(np.abs(expected).max())


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("direction", ["", "through", "in plane"], ids=["constant", "through", "in plane"])
@pytest.mark.parametrize(("thickness", "gap"), ACQUISITIONS)
def test_cubic_keeps_constants_and_ramps_in_mm(thickness, gap, axis, direction):
    error, largest = ramp_error("cubic", thickness, gap, axis, direction)
    assert np.abs(error).max() <= OUTPUT_ROUNDING * largest


@pytest.mark.parametrize(("thickness", "gap"), ACQUISITIONS)
def test_inverse_keeps_constants(thickness, gap):
    error, largest = ramp_error("inverse", thickness, gap, 2, "")
    assert np.abs(error).max() <= OUTPUT_ROUNDING * largest


@pytest.mark.parametrize(("thickness", "gap"), ACQUISITIONS)
def test_inverse_flattens_ramps_at_the_ends_only(thickness, gap):
    """Inside, all rising profiles have one total variation, so the ramp may stay; the outer slices may rise less.

    Measured: up to 0.22 slice spacings at the ends, 0.046 inside, the worst at 5|1.5.
    """
    error, _ = ramp_error("inverse", thickness, gap, 2, "through")
    spacing = thickness + gap
    ends = int(np.ceil(2 * spacing))  # two slices
    assert np.abs(error).max() <= 0.25 * spacing
    assert np.abs(error[2:-2, 2:-2, ends:-ends]).max() <= 0.06 * spacing


@pytest.mark.parametrize(("thickness", "gap"), ACQUISITIONS)
def test_inverse_moves_ramps_in_plane_by_a_fiftieth_of_a_voxel_at_most(thickness, gap):
    """The mean over each slice is measured, so only the thin slices within it can differ; 0.012 voxels measured."""
    error, _ = ramp_error("inverse", thickness, gap, 2, "in plane")
    assert np.abs(error).max() <= 0.02


def test_half_a_thin_slice_of_shift_would_not_pass_for_a_ramp():
    """The check above sees an output whose grid starts half a thin slice off."""
    affine = oblique_affine((1, 1, 3.0))
    scan = (50 + 3.0 * np.arange(14, dtype=np.float32)) * np.ones((16, 16, 1), np.float32)
    image = upsample(scan, affine, spacing_mm=1.0).image
    shifted = image.affine.copy()
    shifted[:3, 3] += 0.5 * shifted[:3, 2]
    depth = (positions(image.shape, shifted) - affine[:3, 3]) @ affine[:3, 2] / 3.0
    assert np.abs(image.get_fdata() - (50 + depth)).max() > 0.4


# ---- overlay ----


def blob(shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray, sigma_mm: float) -> np.ndarray:
    """A round Gaussian blob, bright at a place in the world."""
    squared = ((positions(shape, affine) - centre) ** 2).sum(axis=-1)
    return (1000 * np.exp(-0.5 * squared / sigma_mm**2)).astype(np.float32)


def centroid(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """World position of the centre of all intensity."""
    weights = data.astype(np.float64)
    return np.tensordot(weights, positions(data.shape, affine), axes=3) / weights.sum()


def check_overlay(
    data: np.ndarray, affine: np.ndarray, image: nib.Nifti1Image, thin_affine: np.ndarray, limit_mm: float = OVERLAY_MM
) -> None:
    apart = np.linalg.norm(centroid(image.get_fdata(), thin_affine) - centroid(data, affine))
    assert apart <= limit_mm, f"the blob moved by {apart:.2g} mm"


def blob_scan(axis: int, affine_of: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """16 slices every 4 mm around an off-centre blob, wide enough (5 mm) for sums over slices to be integrals."""
    shape = tuple(int(n) for n in on_axis(axis, 16, 46))
    affine = affine_of(oblique_affine(on_axis(axis, 4.0, 1.4)))
    middle = affine @ [*((np.array(shape) - 1) / 2), 1]
    return blob(shape, affine, middle[:3] + np.array([1.3, -0.7, 0.9]), 5.0), affine


AFFINES = {
    "oblique": lambda affine: affine,
    "straight": lambda affine: np.diag([*np.linalg.norm(affine[:3, :3], axis=0), 1.0]),
    "flipped": lambda affine: affine @ np.diag([-1.0, 1, -1, 1]),
    "all flipped": lambda affine: affine @ np.diag([-1.0, -1, -1, 1]),
    "permuted": lambda affine: np.eye(4)[[2, 0, 1, 3]] @ affine,
    "permuted and flipped": lambda affine: np.eye(4)[[1, 2, 0, 3]] @ affine @ np.diag([1.0, -1, 1, 1]),
}


@pytest.mark.parametrize("affine_of", AFFINES.values(), ids=AFFINES.keys())
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thin_mm", [1.4, 1.1])
def test_a_landmark_stays_where_it_was(axis, affine_of, thin_mm):
    data, affine = blob_scan(axis, affine_of)
    image = upsample(data, affine, spacing_mm=thin_mm).image
    check_overlay(data, affine, image, image.affine)


@pytest.mark.parametrize("method", ["inverse", "eclare"])
@pytest.mark.usefixtures("tiny")
def test_a_landmark_stays_for_methods_that_reshape_it(method):
    """Total variation flattens the blob, and a network of three steps adds to the background: 0.002 mm measured.

    A wrong grid moves it a hundred times as far; that grids are equal to those of `cubic` is the next test.
    """
    data, affine = blob_scan(1, AFFINES["permuted and flipped"])
    image = upsample(data, affine, method, thickness_mm=4.0).image
    check_overlay(data, affine, image, image.affine, limit_mm=0.01)


@pytest.mark.usefixtures("tiny")
def test_every_method_gives_the_same_grid():
    images = [upsample(HEAD, HEAD_AFFINE, method, spacing_mm=1.3).image for method in METHODS]
    assert len({image.shape for image in images}) == 1
    assert len({image.affine.tobytes() for image in images}) == 1


def test_a_grid_that_starts_at_the_first_slice_centre_would_not_overlay():
    data, affine = blob_scan(2, AFFINES["oblique"])
    image = upsample(data, affine).image
    kept_origin = image.affine.copy()
    kept_origin[:3, 3] = affine[:3, 3]
    with pytest.raises(AssertionError, match="the blob moved by 1"):
        check_overlay(data, affine, image, kept_origin)


angle = st.floats(-3.1, 3.1)


@given(
    angles=st.tuples(angle, angle, angle),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
    flips=st.tuples(*[st.booleans()] * 3),
    world_axes=st.permutations([0, 1, 2]),
    axis=st.integers(0, 2),
    count=st.integers(4, 9),
    spacing=st.floats(1.3, 8.0),
    thin=st.floats(0.5, 1.2),
)
def test_the_thin_grid_lies_over_the_scan(angles, origin, flips, world_axes, axis, count, spacing, thin):
    affine = oblique_affine(on_axis(axis, spacing, 1.0), angles, origin)
    affine = np.eye(4)[[*world_axes, 3]] @ affine @ np.diag([*(-1.0 if flip else 1.0 for flip in flips), 1.0])
    shape = tuple(int(n) for n in on_axis(axis, count, 3))
    image = upsample(np.ones(shape, np.float32), affine, spacing_mm=thin).image
    normal = affine[:3, axis] / spacing
    edges, thin_edges = (
        [a[:3, 3] @ normal + spot * (a[:3, axis] @ normal) for spot in (-0.5, n - 0.5)]
        for a, n in ((affine, count), (image.affine, image.shape[axis]))
    )
    # half a thin slice in all, so a quarter at either end; the slack is the grid's allowance for rounded headers
    assert np.abs(np.subtract(edges, thin_edges)).max() <= (0.25 + 1e-3) * thin + HEADER_ROUNDING_MM
    assert np.mean(edges) == pytest.approx(np.mean(thin_edges), abs=HEADER_ROUNDING_MM)
    # directions and in-plane voxel sizes are kept, the thin spacing is the one asked for
    scaled = affine[:3, :3] * on_axis(axis, thin / spacing, 1.0)
    assert np.abs(image.affine[:3, :3] - scaled).max() <= 1e-6 * spacing
    # the origin moves along the slice normal only
    moved = image.affine[:3, 3] - affine[:3, 3]
    assert np.linalg.norm(moved - (moved @ normal) * normal) <= HEADER_ROUNDING_MM


def test_sform_and_qform_of_the_output_agree():
    image = upsample(head_phantom((12, 13, 6)), oblique_affine()).image
    corners = [[0, 0, 0, 1], [11, 12, image.shape[2] - 1, 1]]
    apart = (image.get_sform() - image.get_qform()) @ np.transpose(corners)
    assert np.abs(apart).max() < OVERLAY_MM


# ---- storage order and mirrors ----

HEAD = head_phantom((20, 22, 27))[:, :, 1::3]
HEAD_AFFINE = oblique_affine((1.0, 1.1, 3.0))
KNOWN = {"thickness_mm": 2.7, "spacing_mm": 1.1}


@cache
def reference(method: str) -> nib.Nifti1Image:
    """The head as it is; where `method` learns, by the preset that `tiny` puts in place."""
    return upsample(HEAD, HEAD_AFFINE, method, **KNOWN).image


all_methods = [pytest.mark.usefixtures("tiny"), pytest.mark.parametrize("method", METHODS)]


class TestStorage:
    """How a file is stored changes how the result is stored, and no bit of what it holds."""

    pytestmark = all_methods

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_flipped_file_gives_the_flipped_result(self, method, axis):
        """Array and affine are flipped: the same head."""
        expected = reference(method)
        orientation = np.array([[i, -1 if i == axis else 1] for i in range(3)])
        stored = nib.Nifti1Image(HEAD, HEAD_AFFINE).as_reoriented(orientation)
        got = upsample(np.asarray(stored.dataobj), stored.affine, method, **KNOWN).image
        assert np.array_equal(got.dataobj, np.flip(expected.dataobj, axis))
        assert np.allclose(got.affine, expected.as_reoriented(orientation).affine, atol=HEADER_ROUNDING_MM)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_mirrored_head_gives_the_mirrored_result(self, method, axis):
        """The array is flipped, the affine kept: another head."""
        expected = reference(method)
        got = upsample(np.flip(HEAD, axis).copy(), HEAD_AFFINE, method, **KNOWN).image
        assert np.array_equal(got.dataobj, np.flip(expected.dataobj, axis))
        assert np.array_equal(got.affine, expected.affine)

    def test_permuted_axes_give_the_permuted_result(self, method):
        expected = reference(method)
        orders = list(permutations(range(3)))[1:] if method == "cubic" else [(2, 0, 1), (1, 0, 2)]
        for order in orders:
            affine = HEAD_AFFINE[:, [*order, 3]]
            got = upsample(np.transpose(HEAD, order), affine, method, **KNOWN).image
            assert np.array_equal(got.dataobj, np.transpose(expected.dataobj, order))
            assert np.allclose(got.affine, expected.affine[:, [*order, 3]], atol=HEADER_ROUNDING_MM)

    def test_two_runs_with_one_seed_are_identical(self, method):
        seed = {"seed": 5} if method == "eclare" else {}
        one, other = (upsample(HEAD, HEAD_AFFINE, method, **seed, **KNOWN).image for _ in range(2))
        assert np.array_equal(one.dataobj, other.dataobj)
        assert one.header == other.header


def test_the_phantom_is_not_its_own_mirror():
    """Or the tests above would prove nothing."""
    image = reference("cubic")
    for axis in range(3):
        assert not np.allclose(image.dataobj, np.flip(image.dataobj, axis), atol=1)


@pytest.mark.usefixtures("tiny")
def test_another_seed_gives_another_result():
    other = upsample(HEAD, HEAD_AFFINE, "eclare", seed=1, **KNOWN).image
    assert not np.array_equal(reference("eclare").dataobj, other.dataobj)


@pytest.mark.usefixtures("tiny")
def test_the_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = upsample(HEAD, HEAD_AFFINE, "eclare", **KNOWN).image
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(upsample(HEAD, HEAD_AFFINE, "eclare", **KNOWN).image.dataobj, one.dataobj)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("tiny")
def test_the_input_is_left_alone(method):
    image = nib.Nifti1Image(HEAD.copy(), HEAD_AFFINE)
    header = image.header.copy()
    preset = "fast" if method in ("eclare", "smore") else None
    throughplane.super_resolve(image, method=method, preset=preset, **KNOWN)
    assert np.array_equal(image.dataobj, HEAD)
    assert image.header == header


# ---- what is returned ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("tiny")
def test_the_residual_is_what_the_result_leaves_of_the_scan(method):
    """W is built anew from the numbers given, and applied in float64."""
    result = upsample(HEAD, HEAD_AFFINE, method, thickness_mm=2.5, spacing_mm=1.1)
    thick, thin = SliceGrid(HEAD.shape[2], 3.0), SliceGrid(result.image.shape[2], 1.1)
    w = slice_selection(thick, thin, Gaussian(2.5)).weights.numpy()
    expected = result.image.get_fdata() @ w.T - HEAD
    assert np.abs(result.residual.get_fdata() - expected).max() <= OUTPUT_ROUNDING * HEAD.max()
    assert np.allclose(result.residual.affine, HEAD_AFFINE, atol=HEADER_ROUNDING_MM)
    stated = result.record["residual"]
    rms = np.sqrt((expected**2).mean())
    # of the float32 voxels themselves, so it agrees far below float32
    assert stated["rms"] == pytest.approx(rms, rel=1e-6)
    assert stated["relative_to_scan"] == pytest.approx(rms / np.sqrt((HEAD.astype(float) ** 2).mean()), rel=1e-6)


def test_a_result_with_a_residual_is_told_from_one_without():
    """Cubic interpolation does not explain the scan, the inverse does: the record must show it."""
    cubic, inverse = (upsample(HEAD, HEAD_AFFINE, method, **KNOWN).record["residual"] for method in METHODS[:2])
    assert cubic["relative_to_scan"] > 1e-2
    assert inverse["relative_to_scan"] < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("tiny")
def test_the_record_says_what_is_needed_to_repeat_the_run(method):
    record = upsample(HEAD, HEAD_AFFINE, method, gap_mm=0.3, profile=throughplane.Box).record
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["method"] == method
    assert (record.get("preset"), record.get("seed")) == (
        ("fast", 0) if method in ("eclare", "smore") else (None, None)
    )
    acquisition = record["acquisition"]
    assert acquisition["profile"] == "box"
    assert acquisition["profile_source"] == acquisition["thickness_source"] == "flag"
    assert (acquisition["thickness_mm"], acquisition["gap_mm"]) == pytest.approx((2.7, 0.3))
    assert record["output"]["voxel_mm"] == pytest.approx([1.0, 1.1, 1.1])
    assert record["output"]["shape"] == [20, 22, 25]
    assert record["SliceThickness"] == record["SpacingBetweenSlices"] == pytest.approx(1.1)
    for key in ("software", "GeneratedBy", "input", "device", "threads", "seconds", "peak_memory_bytes", "warnings"):
        assert key in record


def test_what_was_assumed_is_among_the_warnings():
    (warning,) = (w for w in upsample(HEAD, HEAD_AFFINE).record["warnings"] if "thickness" in w)
    assert "ASSUMING NO GAP" in warning


def test_the_result_is_float32_in_the_scans_orientation_and_units():
    image = nib.Nifti1Image(np.round(HEAD).astype(np.int16), HEAD_AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    result = throughplane.super_resolve(image, method="cubic")
    assert result.image.get_data_dtype() == np.float32
    assert nib.aff2axcodes(result.image.affine) == nib.aff2axcodes(HEAD_AFFINE)
    assert result.image.header.get_xyzt_units() == ("mm", "sec")
    assert np.array_equal(result.image.dataobj, result.volume.data)


def test_a_file_and_the_image_in_memory_give_the_same(thick_scan):
    from_file = throughplane.super_resolve(str(thick_scan), method="cubic", thickness_mm=3.0)
    in_memory = throughplane.super_resolve(nib.load(thick_scan), method="cubic", thickness_mm=3.0)
    assert np.array_equal(from_file.image.dataobj, in_memory.image.dataobj)
    assert (len(from_file.record["input"]["sha256"]), in_memory.record["input"]["sha256"]) == (64, "")


def test_progress_comes_to_its_end():
    told: list[tuple[str, int, int]] = []
    upsample(HEAD, HEAD_AFFINE, "inverse", progress=lambda *report: told.append(report))
    stage, done, total = told[-1]
    assert (stage, done) == ("inverse", total)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spacing_mm": 3.0}, InputRefused, "pass a spacing between 0 and 3 mm"),
        ({"spacing_mm": 7.0}, InputRefused, "thin slices of 7 mm asked for slices every 3 mm"),
        ({"spacing_mm": 0.0}, InputRefused, "pass a spacing between 0 and 3 mm"),
        ({"spacing_mm": -1.0}, InputRefused, "pass a spacing between 0 and 3 mm"),
        ({"spacing_mm": float("nan")}, InputRefused, "pass a spacing between 0 and 3 mm"),
        ({"spacing_mm": 2.5, "thickness_mm": 2.0}, InputRefused, "would be thicker than the scan's own 2 mm"),
        ({"thickness_mm": 2.0, "gap_mm": 2.0}, InputRefused, "add up to 4 mm, but slices lie 3 mm apart"),
        ({"preset": "fast"}, FlagConflict, "--preset fast would be ignored: --method cubic learns nothing"),
        ({"method": "inverse", "seed": 0}, FlagConflict, "--seed 0 would be ignored: --method inverse"),
        ({"thickness_mm": 2.0, "profile": Gaussian(2.0)}, FlagConflict, "--thickness 2 would be ignored"),
        ({"volume": 0}, InputRefused, "image is 3-D, --volume 0 would be ignored"),
        ({"device": "toaster"}, InputRefused, "toaster is not a device"),
        ({"threads": 0}, InputRefused, "expected at least 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, error, message):
    image = nib.Nifti1Image(HEAD, HEAD_AFFINE)
    with pytest.raises(error, match=message):
        throughplane.super_resolve(image, **{"method": "cubic", **arguments})


def test_a_single_scan_in_place_of_a_list_is_refused(thick_scan):
    """A name is a sequence, of letters."""
    with pytest.raises(InputRefused, match=r"others is a single str; expected a list of scans: others=\[...\]"):
        throughplane.super_resolve(thick_scan, others=str(thick_scan), method="inverse")


def test_a_prior_may_be_named_by_text(thick_scan, tmp_path):
    with pytest.raises(InputRefused, match="no prior weights in"):
        throughplane.super_resolve(thick_scan, method="focvs", prior=str(tmp_path / "missing"))


def test_reading_and_planning_use_the_threads_that_were_asked_for(thick_scan, monkeypatch):
    used = []

    def counting(function):
        def counted(*arguments):
            used.append(torch.get_num_threads())
            return function(*arguments)

        return counted

    monkeypatch.setattr("throughplane.pipeline.with_thickness_found", counting(with_thickness_found))
    assert torch.get_num_threads() == 2
    (scan,) = read_scans([thick_scan], Acquired(estimator=counting(eclare.estimate_profile)), 1)
    plan(scan, How(threads=1, device="cpu"))
    assert used == [1, 1]
    assert torch.get_num_threads() == 2


def test_an_unknown_method_is_refused():
    """By the function itself; the types that tests enforce would speak first."""
    scan, how = read_scan(nib.Nifti1Image(HEAD, HEAD_AFFINE), Acquired()), How()
    object.__setattr__(how, "method", "magic")
    with pytest.raises(InputRefused, match="'magic' is unknown; expected one of eclare, focvs, smore, cubic, inverse"):
        plan(scan, how)


def test_an_unknown_preset_is_refused():
    scan, how = read_scan(nib.Nifti1Image(HEAD, HEAD_AFFINE), Acquired()), How()
    object.__setattr__(how, "preset", "turbo")
    with pytest.raises(InputRefused, match="'turbo' is unknown; expected one of instant, fast, standard, best"):
        plan(scan, how)


def test_a_profile_by_name_is_refused():
    acquired = Acquired()
    object.__setattr__(acquired, "profile", "gaussian")
    with pytest.raises(InputRefused, match="expected Gaussian, Box or slr of throughplane"):
        read_scan(nib.Nifti1Image(HEAD, HEAD_AFFINE), acquired)


@pytest.mark.usefixtures("tiny")
def test_slices_too_small_to_learn_from_are_refused():
    small = head_phantom((9, 9, 36))[:, :, 1::4]
    with pytest.raises(InputRefused, match="too little for eclare to learn from; use --preset instant, or"):
        upsample(small, oblique_affine(), "eclare")


def test_every_public_name_is_there():
    for name in throughplane.__all__:
        assert getattr(throughplane, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'superresolve'"):
        _ = throughplane.superresolve


# ---- brightness that alternates ----


def alternating(tmp_path: Path, gain: float) -> Path:
    data = head_phantom((64, 66, 72)).astype(np.float64)[:, :, 1::4] + 1
    return save(tmp_path / "scan.nii.gz", (data * np.where(np.arange(18) % 2, 1 / gain, gain)), oblique_affine())


@pytest.mark.parametrize("gain", [1.05, 0.97])
def test_alternating_brightness_is_told_and_undone_where_asked(tmp_path, gain):
    """Undone, the scan is what it was without it, up to the precision of the estimate."""
    even = throughplane.super_resolve(alternating(tmp_path, 1.0), method="inverse")
    assert not any("by turns" in note for note in even.record["warnings"])
    scan = alternating(tmp_path, gain)
    left = throughplane.super_resolve(scan, method="inverse")
    assert any("pass --undo-alternation" in note for note in left.record["warnings"])
    undone = throughplane.super_resolve(scan, method="inverse", undo_alternation=True)
    assert any("by turns; undone" in note for note in undone.record["warnings"])
    off, off_left = (np.abs(each.volume.data - even.volume.data).mean() for each in (undone, left))
    assert off < 0.2 * off_left
    assert undone.record["residual"]["relative_to_scan"] < 1e-6

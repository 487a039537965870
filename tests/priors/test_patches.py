"""Patches are a function of seed and index; placement and intensity maps do what they say."""

from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from priors.augment import Placement, draw_placement, draw_whole, extract, intensity_map, vary_intensities
from priors.patches import BatchIndices, PatchConfig, Patches, collate
from priors.planes import Plane
from priors.random import gaussian_blur, generator_for, smooth_field
from priors.synthetic import BRAIN, KNOWN_LABELS, LEFT_OF_RIGHT, Contrast, _tissues, synthetic_slice

IDENTITY = ((1.0, 0.0), (0.0, 1.0))
RAMP_ERROR = 1e-3  # torch's bicubic kernel (a = -0.75) bends a slope of 1/20 per pixel by up to 2 % of it


def new_patches(corpus, seed=1, **changes):
    return Patches(corpus.train, corpus.label_maps, PatchConfig(**{"size": 16, **changes}), seed)


def same(one, other):
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(one, other, strict=True))


def test_a_patch_depends_on_seed_and_index_only(corpus):
    in_order = [new_patches(corpus)[i] for i in range(8)]
    patches = new_patches(corpus)
    backwards = [patches[i] for i in reversed(range(8))][::-1]
    assert all(same(one, other) for one, other in zip(in_order, backwards, strict=True))
    assert not same(in_order[0], in_order[1])
    assert not same(in_order[0], new_patches(corpus, seed=2)[0])


def test_worker_processes_make_the_same_patches(corpus):
    patches, indices = new_patches(corpus), BatchIndices(3, first_step=5)
    alone = islice(DataLoader(patches, batch_sampler=indices, collate_fn=collate), 2)
    helped = islice(DataLoader(patches, batch_sampler=indices, collate_fn=collate, num_workers=1), 2)
    for one, other in zip(alone, helped, strict=True):
        assert same(vars(one).values(), vars(other).values())


def test_processes_share_patches_out_without_overlap():
    together = [i for batch in islice(BatchIndices(6, 2), 2) for i in batch]
    shared = [islice(BatchIndices(3, 2, rank, world_size=2), 2) for rank in (0, 1)]
    assert sorted(i for batches in shared for batch in batches for i in batch) == together


def test_patches_hold_only_training_subjects_and_label_maps(corpus):
    patches = new_patches(corpus, synthetic_ratio=0.5)
    names = {patches.name_of(patches[i][4]) for i in range(80)}
    assert names == {"cstar_T1w.nii.gz", "cstar_T2w.nii.gz", "philips_T1w.nii.gz", "seg.nii.gz"}


def test_synthetic_patches_come_at_the_stated_share(corpus):
    patches = new_patches(corpus, synthetic_ratio=0.25)
    share = sum(patches[i][4] >= len(patches.scans) for i in range(400)) / 400
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


def test_patches_are_finite_not_negative_and_scaled(corpus):
    patches = new_patches(corpus, synthetic_ratio=0.5)
    clean = torch.stack([patches[i][0] for i in range(100)])
    assert torch.isfinite(clean).all()
    assert clean.min() >= 0
    assert 0.5 < float(clean.quantile(0.99)) < 2.0


def test_seeds_that_share_32_bits_are_not_shared_by_runs():
    numbers = [int(torch.randint(2**31, (), generator=generator_for(seed, 0))) for seed in range(50)]
    assert len(set(numbers)) == 50


def ramp(rows=30, columns=40):
    return 1 + torch.arange(rows)[:, None] / rows + 2 * torch.arange(columns)[None] / columns


def test_an_unturned_placement_copies_pixels():
    image = ramp()
    patch = extract(image, Placement(IDENTITY, (5.0, 7.0), mirrored=False), 16, None)
    assert torch.equal(patch, image[5:21, 7:23])


def test_beyond_the_slice_is_air():
    patch = extract(ramp(), Placement(IDENTITY, (-4.0, 36.0), mirrored=False), 16, None)
    assert torch.equal(patch[:4], torch.zeros(4, 16))
    assert torch.equal(patch[:, 4:], torch.zeros(16, 12))


def test_a_turned_placement_reads_a_ramp_where_it_says():
    image, turn, offset = ramp(60, 60), ((0.9, -0.1), (0.1, 1.1)), (12.0, 15.0)
    patch = extract(image, Placement(turn, offset, mirrored=False), 16, None)
    r, c = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    rows, columns = offset[0] + 0.9 * r - 0.1 * c, offset[1] + 0.1 * r + 1.1 * c
    torch.testing.assert_close(patch, 1 + rows / 60 + 2 * columns / 60, rtol=0, atol=RAMP_ERROR)


def test_a_finer_placement_averages_to_the_coarse_one():
    image = ramp(60, 60)
    placement = Placement(((0.9, -0.1), (0.1, 1.1)), (12.0, 15.0), mirrored=False)
    fine = extract(image, placement.finer(2), 32, None)
    averaged = torch.nn.functional.avg_pool2d(fine[None], 2)[0]
    torch.testing.assert_close(averaged, extract(image, placement, 16, None), rtol=0, atol=2 * RAMP_ERROR)


@pytest.mark.parametrize("plane", list(Plane))
def test_mirroring_reverses_left_and_right_and_nothing_else(plane):
    drawn = [draw_placement((40, 40), 16, plane, generator=generator_for(3, i)) for i in range(60)]
    share = sum(placement.mirrored for placement in drawn) / 60
    assert share == 0 if plane is Plane.SAGITTAL else 0.2 < share < 0.8
    patch = extract(ramp(), Placement(IDENTITY, (0.0, 0.0), mirrored=True), 16, plane.mirror_axis)
    upright = ramp()[:16, :16]
    assert torch.equal(patch, upright if plane is Plane.SAGITTAL else upright.flip(0))


WHOLE = {"size": 16, "pixel_mm": 4}  # the tiny heads are about 40 mm wide


@pytest.mark.parametrize("synthetic_ratio", [0.0, 1.0])
def test_whole_slices_show_all_of_a_head_and_the_air_around_it(corpus, synthetic_ratio):
    patches = new_patches(corpus, synthetic_ratio=synthetic_ratio, **WHOLE)
    clean = torch.stack([patches[i][0] for i in range(60)])
    assert clean.shape == (60, 16, 16)
    assert torch.isfinite(clean).all()
    edge = torch.cat([clean[:, 0], clean[:, -1], clean[:, :, 0], clean[:, :, -1]])
    assert float(clean[:, 5:11, 5:11].mean()) > 0.25
    assert float(edge.mean()) < 0.1 * float(clean[:, 5:11, 5:11].mean())


def test_whole_slices_depend_on_seed_and_index_only_and_no_two_are_alike(corpus):
    one, other = new_patches(corpus, **WHOLE), new_patches(corpus, **WHOLE)
    assert same(one[7], other[7])
    assert not torch.equal(one[7][0], one[8][0])


def test_patches_of_pixels_of_one_mm_are_what_they_were_before_there_were_larger_ones(corpus):
    """A regression number, so that runs of then go on: sums of the first patches, made by the version before."""
    sums = [round(float(new_patches(corpus)[i][0].double().sum()), 1) for i in range(6)]
    assert sums == [158.4, 85.9, 169.7, 15.9, 54.6, 122.9]


def test_a_placement_of_a_whole_slice_has_its_middle_near_that_of_the_slice():
    for i in range(40):
        placement = draw_whole((200, 240), 64, 4, Plane.AXIAL, generator=generator_for(1, i))
        middle = [o + 31.5 * (row[0] + row[1]) for o, row in zip(placement.offset, placement.turn, strict=True)]
        assert middle == [pytest.approx(99.5, abs=12.01), pytest.approx(119.5, abs=12.01)]
        (a, b), (c, d) = placement.turn
        assert 0.9 * 4 * 0.99 < (a * d - b * c) ** 0.5 < 1.2 * 4 * 1.01


def test_a_bent_placement_reads_a_ramp_where_it_says():
    bend = torch.full((2, 5, 5), 1.5)
    image, plain = ramp(60, 60), Placement(IDENTITY, (10.0, 10.0), mirrored=False)
    bent = Placement(IDENTITY, (10.0, 10.0), mirrored=False, bend=bend)
    expected = extract(image, plain, 16, None) + 1.5 / 60 + 2 * 1.5 / 60
    torch.testing.assert_close(extract(image, bent, 16, None), expected, rtol=0, atol=RAMP_ERROR)
    assert torch.equal(bent.finer(2).bend, bend)


@pytest.mark.parametrize("pixel_mm", [0, 3])
def test_pixels_that_do_not_average_from_half_as_large_ones_are_refused(pixel_mm):
    with pytest.raises(ValueError, match=f"pixel_mm is {pixel_mm}; expected 1 or a multiple of 2"):
        PatchConfig(pixel_mm=pixel_mm)


def test_labels_are_picked_not_mixed():
    labels = torch.tensor([0, 7], dtype=torch.uint8).repeat(20, 10)
    patch = extract(labels, Placement(((0.8, 0.1), (-0.1, 0.8)), (3.0, 3.0), mirrored=False), 16, None)
    assert set(patch.unique().tolist()) == {0, 7}


@pytest.mark.parametrize("inverting", [False, True])
def test_intensity_maps_keep_air_dark_and_are_monotone_where_they_say(inverting):
    x = torch.linspace(0, 1.2, 500)[None]
    for i in range(20):
        y = intensity_map(x, inverting=inverting, generator=generator_for(0, i))[0]
        peak = int(y.argmax())
        assert y[0] == 0
        assert (y[: peak + 1].diff() >= -1e-6).all()
        assert (y[peak:].diff() <= 1e-6).all()
        assert (peak < 200) if inverting else (peak == 499)


def test_varying_intensities_is_reproducible_and_keeps_clean_air():
    patch = torch.zeros(16, 16)
    patch[4:12, 4:12] = 0.8
    one, other = (
        vary_intensities(patch, generator=torch.Generator().manual_seed(5), recontrast=True) for _ in range(2)
    )
    assert torch.equal(one, other)
    assert all(
        float(vary_intensities(patch, generator=generator_for(1, i), recontrast=True)[0, 0]) < 0.2 for i in range(50)
    )


def test_blur_keeps_constants_and_spreads_an_impulse_by_its_sd():
    torch.testing.assert_close(gaussian_blur(torch.full((9, 9), 3.0), 1.3), torch.full((9, 9), 3.0))
    impulse = torch.zeros(41, 41)
    impulse[20, 20] = 1
    spread = gaussian_blur(impulse, 2.0).sum(1)
    variance = float((spread * (torch.arange(41) - 20) ** 2).sum())
    assert variance == pytest.approx(4.0, rel=0.03)  # cut at three standard deviations


def test_smooth_fields_are_smooth_and_about_unit_variance():
    fields = torch.stack([smooth_field((32, 32), 4, generator=generator_for(0, i)) for i in range(200)])
    assert 0.3 < float(fields.var()) < 1.2  # interpolation between nodes lowers it
    assert float(fields.diff(dim=-1).abs().max()) < 1.0  # nodes are 10 pixels apart; independent pixels differ by 6


@pytest.mark.parametrize("contrast", list(Contrast))
def test_left_and_right_are_alike_and_air_is_dark(contrast):
    means, sds = _tissues(contrast, generator=generator_for(0, 1))
    assert means[0] == 0
    for right, left in LEFT_OF_RIGHT.items():
        i, j = KNOWN_LABELS.index(right), KNOWN_LABELS.index(left)
        assert means[i] == means[j]
        assert sds[i] == sds[j]


def test_contrasts_order_tissues_as_named():
    white, cortex, fluid = (KNOWN_LABELS.index(label) for label in (2, 3, 24))

    def mean_of(contrast):
        return torch.stack([_tissues(contrast, generator=generator_for(7, i))[0] for i in range(50)]).mean(0)

    t1, t2, flair = (mean_of(contrast) for contrast in (Contrast.T1, Contrast.T2, Contrast.FLAIR))
    assert t1[white] > t1[cortex] > t1[fluid]
    assert t2[fluid] > t2[cortex] > t2[white]
    assert flair[cortex] > flair[white] > flair[fluid]


def test_some_synthetic_heads_are_brain_only():
    scalp, white = KNOWN_LABELS.index(507), KNOWN_LABELS.index(2)
    labels = torch.full((32, 32), scalp, dtype=torch.uint8)
    labels[:, 16:] = white
    assert 507 not in BRAIN
    dark = [float(synthetic_slice(labels, generator=generator_for(2, i))[:, :4].max()) < 1e-3 for i in range(100)]
    assert 0.1 < sum(dark) / 100 < 0.5

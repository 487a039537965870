"""How good a result is: every measure of a study, by names that say over which mask and for which data range.

Formulas are in docs/studies/measures.md, one line each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from forward_models import InputRefused, Volume
from throughplane.metrics import SSIM_REACH, gradient_distances, psnr_db, similarity_map
from throughplane.residual import left_over, root_mean_square
from throughplane.studies.cases import Case
from throughplane.studies.lesions import lesion_measures
from throughplane.studies.perception import haarpsi_of_planes
from throughplane.studies.resolution import effective_fwhm_mm
from throughplane.studies.spectra import Spectra, spectra_along
from throughplane.studies.tissue import tissue_dice

Curves = Mapping[str, Mapping[str, Sequence[float]]]
Image = Float[np.ndarray, "i j k"]
RANGE = "p0.1-99.9"
NEAR_ENDS = 3  # slices that may see beyond the truth
NOTICEABLE = 1e-3  # of the scan: less noise than this is rounding


def measure(case: Case, result: Volume) -> tuple[Mapping[str, float], Curves]:
    """Of a result on the grid of the truth, in the units of the scan: values and curves as in `JobRecord`.

    A measure that means nothing here is left out: those of the brain and of lesions without their masks, the effective
    width where the volume does not tell it, the ratio to noise where there is none, PSNR where nothing is off.

    Raises:
        InputRefused: the result has another shape, or values that are not finite.
    """
    truth, found = (np.asarray(volume.data, np.float32) for volume in (case.truth, result))
    if found.shape != truth.shape:
        raise InputRefused(f"the result has shape {found.shape}, the truth {truth.shape}; measures need one grid")
    if not np.isfinite(found).all():
        raise InputRefused("the result holds values that are not finite; nothing can be measured on it")
    spectra = spectra_along(case.axis, case.truth.voxel_mm[case.axis], truth, found, case.mask)
    values = {
        **_agreement(case, truth, found),
        **_gradients(case, truth, found),
        **_spectral(case, spectra),
        **_explained(case, truth, found),
        **_resolution(case, truth, found),
        **_anatomy(case, truth, found),
    }
    told = {name: value for name, value in values.items() if np.isfinite(value)}
    return told, {"spectrum_through_plane/head": _columns(spectra)}


def _agreement(case: Case, truth: Image, found: Image) -> dict[str, float]:
    """PSNR and SSIM in every mask, HaarPSI: all for the data range of the head."""
    similarity = similarity_map(truth, found, case.data_range)
    values = {}
    for name, mask in _masks(case, truth).items():
        counted = _without_border(mask) if name == "whole" else mask
        values[f"psnr_db/{name}/{RANGE}"] = psnr_db(truth, found, mask, case.data_range)
        values[f"ssim/{name}/{RANGE}"] = float(similarity[counted].mean(dtype=np.float64))
    values[f"haarpsi/head/{RANGE}"] = haarpsi_of_planes(truth, found, case.mask, case.axis, case.window)
    return values


def _masks(case: Case, truth: Image) -> dict[str, Bool[np.ndarray, "i j k"]]:
    masks = {"head": case.mask, "whole": np.ones(truth.shape, bool)}
    return masks if case.brain is None else {**masks, "brain": case.brain}


def _without_border(mask: Bool[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
    """As scikit-image averages SSIM over an image: voxels whose windows lie within it."""
    inside = np.zeros_like(mask)
    inside[(slice(SSIM_REACH, -SSIM_REACH),) * 3] = True
    return mask & inside


def _gradients(case: Case, truth: Image, found: Image) -> dict[str, float]:
    distances = gradient_distances(truth, found, case.mask)
    return {
        "gradient_distance/head": float(np.mean(distances)),
        "gradient_distance_through_plane/head": distances[case.axis],
    }


def _spectral(case: Case, spectra: Spectra) -> dict[str, float]:
    nyquist_per_mm = 0.5 / case.scan.voxel_mm[case.axis]
    beyond = spectra.log_distance_db(nyquist_per_mm)
    return {
        "transfer_half_per_mm/head": spectra.half_of(spectra.transfer),
        "ring_correlation_half_per_mm/head": spectra.half_of(spectra.ring_correlation),
        **({} if beyond is None else {"log_spectral_distance_db/head": beyond}),
    }


def _columns(spectra: Spectra) -> dict[str, list[float]]:
    return {
        "cycles_per_mm": spectra.cycles_per_mm.tolist(),
        "truth_power": spectra.truth.tolist(),
        "result_power": spectra.result.tolist(),
        "error_power": spectra.error.tolist(),
        "ring_correlation": spectra.ring_correlation.tolist(),
        "transfer": spectra.transfer.tolist(),
    }


def _explained(case: Case, truth: Image, found: Image) -> dict[str, float]:
    """How much of the scan a result leaves unexplained, and the truth: its noise, and what lies beyond the ends.

    Against the noise alone, away from the ends, where there is noise to speak of.
    """
    order = case.stack.order
    scan = order.apply(np.asarray(case.scan.data))
    left = [left_over(order.apply(image), scan, case.stack.selection) for image in (found, truth)]
    size = root_mean_square(scan)
    of_result, of_truth = (root_mean_square(each) / size for each in left)
    values = {"residual/scan": of_result, "residual_of_truth/scan": of_truth}
    if scan.shape[-1] <= 2 * NEAR_ENDS:
        return values
    inner, noise = (root_mean_square(each[..., NEAR_ENDS:-NEAR_ENDS]) for each in left)
    return values if noise < NOTICEABLE * size else {**values, "residual_to_noise/scan": inner / noise}


def _resolution(case: Case, truth: Image, found: Image) -> dict[str, float]:
    widths = {
        name: effective_fwhm_mm(replace(case.truth, data=image), case.axis)
        for name, image in (("result", found), ("truth", truth))
    }
    return {f"effective_fwhm_mm/{name}": width for name, width in widths.items() if width is not None}


def _anatomy(case: Case, truth: Image, found: Image) -> dict[str, float]:
    """Tissue and lesions, in the brain where it was outlined, else in the head."""
    name, mask = ("head", case.mask) if case.brain is None else ("brain", case.brain)
    values = {f"dice_{tissue}/{name}": dice for tissue, dice in tissue_dice(truth, found, mask).items()}
    if case.lesions is not None and case.lesions.any():
        lesions = lesion_measures(truth, found, case.lesions, mask, case.truth.voxel_mm)
        values |= {f"{key}/{name}" if key == "false_spots_per_litre" else key: lesions[key] for key in lesions}
    return values

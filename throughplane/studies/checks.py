"""Whether a result is one: what is broken is told apart from what is merely bad, before anything is measured."""

import numpy as np

from forward_models import InputRefused, Volume
from throughplane.orientation import stored_like
from throughplane.studies.cases import Case, on_grid_of

ROUNDING = 5e-3  # of the data range: as much as rounding to 8 bits changes


def checked(case: Case, result: Volume) -> Volume:
    """The result in the order of the truth, in the units of the scan.

    Raises:
        InputRefused: it is on another grid than the truth (on that of the scan, say), holds NaN or Inf, is the same
            everywhere, or is made of copies of the scan's slices: a nearest-neighbour resampling of the input, which
            is what comes back from a tool that has done nothing.
    """
    _refuse_grid_of_scan(case, result)
    ordered = on_grid_of(result, case.truth, "the result")
    values = np.asarray(ordered.data)
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        raise InputRefused(f"the result holds {int((~finite).sum())} voxels that are NaN or Inf")
    if values.min() == values.max():
        raise InputRefused(f"the result is {float(values.min()):g} everywhere")
    if _copies(case, values):
        raise InputRefused("the result is its input: each of its slices is a copy of one of the scan's")
    return ordered


def _refuse_grid_of_scan(case: Case, result: Volume) -> None:
    ordered = stored_like(result, case.scan)
    if ordered is not None and ordered.data.shape == case.scan.data.shape:
        raise InputRefused("the result is on the grid of the scan: its input, or as good as that")


def _copies(case: Case, values: np.ndarray) -> bool:
    """Whether every slice of the result equals some slice of the scan."""
    thick = np.moveaxis(np.asarray(case.scan.data, np.float64), case.axis, 0)
    tolerance = ROUNDING * case.data_range
    return all(
        any(np.abs(thin - slice_).max() <= tolerance for slice_ in thick) for thin in np.moveaxis(values, case.axis, 0)
    )

"""How good a result is: every measure of a study, by names that say over which mask and for which data range."""

from collections.abc import Mapping, Sequence

import numpy as np

from forward_models import Volume
from throughplane.metrics import score
from throughplane.studies.cases import Case

Curves = Mapping[str, Mapping[str, Sequence[float]]]


def measure(case: Case, result: Volume) -> tuple[Mapping[str, float], Curves]:
    """Of a result on the grid of the truth, in the units of the scan: values and curves as in `JobRecord`."""
    scores = score(np.asarray(case.truth.data, np.float32), np.asarray(result.data), case.mask, case.data_range)
    return {"psnr_db/head/p0.1-99.9": scores.psnr_db, "ssim/head/p0.1-99.9": scores.ssim}, {}

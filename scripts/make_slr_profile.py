"""Make forward_models/slr_profile.json: the slice profile of a Shinnar-Le Roux pulse. Needs `pip install sigpy`.

    python scripts/make_slr_profile.py forward_models/slr_profile.json

Excitation pulse, least-squares design, 256 samples, time-bandwidth product 4 (usual for 2-D spin echo), ripples 1 %.
The magnetisation is simulated with the hard-pulse model; its magnitude is stored for a width of 1 mm.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import sigpy.mri.rf as rf

TIME_BANDWIDTH = 4
PULSE_SAMPLES = 256
STEP_MM = 0.025
REACH_MM = 2.0  # beyond two slice widths the magnitude stays below 1 % of the centre's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out

    pulse = rf.slr.dzrf(PULSE_SAMPLES, TIME_BANDWIDTH, ptype="ex", ftype="ls", d1=0.01, d2=0.01)
    frequency = np.linspace(-4 * TIME_BANDWIDTH, 4 * TIME_BANDWIDTH, 8001)  # cycles per pulse duration
    a, b = rf.sim.abrm(pulse, frequency)
    magnitude = np.abs(2 * np.conj(a) * b)
    magnitude = (magnitude + magnitude[::-1]) / 2

    inside = np.flatnonzero(magnitude >= magnitude.max() / 2)
    width = frequency[inside[-1]] - frequency[inside[0]]
    offsets_mm = np.linspace(-REACH_MM, REACH_MM, round(2 * REACH_MM / STEP_MM) + 1)
    weights = np.interp(offsets_mm, frequency / width, magnitude)
    weights /= weights.sum()
    table = {
        "made_by": "scripts/make_slr_profile.py",
        "pulse": f"sigpy dzrf ex ls, time-bandwidth {TIME_BANDWIDTH}, {PULSE_SAMPLES} samples, ripples 0.01",
        "offsets_mm": [round(float(z), 6) for z in offsets_mm],
        "weights": [round(float(w), 9) for w in weights],
    }
    out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

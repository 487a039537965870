"""ECLARE as published, given its time, against the presets of this package on the same scans.

    python benchmarks/equal_time.py OUT.json THIN.nii.gz [--grid 4|1,5|0] [--minutes 30] [--threads 2]

Scans are simulated and scored as by `throughplane compare`; OUT.json is written after every row, and rows in it are not
repeated. The published network (16 blocks of 256 channels) is far from its 7813 steps after half an hour on two cores,
so its learning-rate schedule is made to end with the steps that fit, counted from its speed in the first few.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import eclare
from forward_models import read_volume
from throughplane.metrics import Scores, score
from throughplane.outputs import json_writer, write_all
from throughplane.studies.cases import Case, case_of
from throughplane.studies.records import Degradation

TRIAL_STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("thin", type=Path)
    parser.add_argument("--grid", default="4|1,5|0")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    start = eclare.load_starting_network()
    for cell in arguments.grid.split(","):
        thickness_mm, gap_mm = (float(number) for number in cell.split("|"))
        case = case_of(read_volume(arguments.thin), Degradation(thickness_mm, gap_mm, "gaussian"))
        rows = {
            "fast": lambda case=case: reconstructed(case, eclare.PRESETS["fast"], start),
            "standard": lambda case=case: reconstructed(case, eclare.PRESETS["standard"], start),
            "standard, no start": lambda case=case: reconstructed(case, eclare.PRESETS["standard"], None),
            "as published": lambda case=case: published(case, arguments.minutes * 60),
        }
        for name, run in rows.items():
            if f"{cell} {name}" not in results:
                results[f"{cell} {name}"] = run()
                write_all({arguments.out: json_writer(results)})
            print(cell, name, results[f"{cell} {name}"], flush=True)


def published(case: Case, seconds: float) -> dict[str, Any]:
    """With as many steps as fit into the time."""
    config = eclare.EclareConfig.as_published()
    trial = replace(config, steps=TRIAL_STEPS, check_every=TRIAL_STEPS)
    began = time.monotonic()
    eclare.train(case.stack, trial, generator=torch.Generator().manual_seed(0))
    steps = int(seconds / ((time.monotonic() - began) / TRIAL_STEPS))
    return reconstructed(case, replace(config, steps=steps, check_every=steps), None)


def reconstructed(case: Case, config: eclare.EclareConfig, start: eclare.StartingNetwork | None) -> dict[str, Any]:
    began = time.monotonic()
    training = eclare.train(case.stack, config, start=start, generator=torch.Generator().manual_seed(0))
    thin = eclare.super_resolve(case.stack, training.network, training.config)
    seconds = time.monotonic() - began
    return {**asdict(scored(case, thin)), "seconds": round(seconds, 1), "steps": training.steps}


def scored(case: Case, thin: Float[Tensor, "a b thin"]) -> Scores:
    """In the head mask, of a thin volume in working order."""
    return score(case.truth.data, case.stack.in_file_order(thin), case.mask, case.data_range)


if __name__ == "__main__":
    main()

"""The README of a checkpoint: what the prior is, what it learned from, what it must not be trusted with."""

import shutil
from pathlib import Path
from typing import Any

from priors.augment import SCALES, WHOLE_SCALES
from priors.data import SPACING_MM
from priors.folders import CARD, CONFIG, DATA, PREPROCESS, Json, read_json, replace_folder, write_json


def model_card(config: dict[str, Any], preprocess: dict[str, Any], data: dict[str, Any]) -> str:
    """README.md from the three JSON records of a checkpoint."""
    reached = config["reached"]
    spacing_mm = preprocess["spacing_mm"]
    least_mm, most_mm = (spacing_mm * scale for scale in (SCALES if spacing_mm == SPACING_MM else WHOLE_SCALES))
    training = config["training"]
    seen_before = sum(run["patches"] for run in config.get("before", ()))
    started = f", after {seen_before} patches of earlier runs" if seen_before else ""
    psnr = "\n".join(f"| {sigma} | {db:.2f} |" for sigma, db in reached["validation_psnr_db"].items())
    evaluation = _evaluated(config["evaluation"]) if "evaluation" in config else ""
    return f"""# A diffusion prior of head MRI slices

A denoiser D(x, sigma) of 2-D slices (sagittal, coronal, axial; {spacing_mm:g} mm pixels, RAS), trained to
recover slices from added Gaussian noise. It knows what head MRI tends to look like; it knows nothing of the person
scanned.

## How far it got

{reached["step"]} steps of {training["batch_size"]} patches of {training["patches"]["size"]} x \
{training["patches"]["size"]} pixels{started}; {reached["worked_minutes"] / 60:.1f} hours; last training loss \
{reached["loss"]:.4f} (weighted, 1 at the start). Denoising of validation slices, PSNR in dB over the head, data
range 1:

| sigma | PSNR |
|---|---|
{psnr}
{evaluation}
## What it learned from

{_listed(data["train"])}

Synthetic heads: {len(data["label_maps"])} label maps, {training["patches"]["synthetic_ratio"]:.0%} of patches
{"(" + data["label_maps"][0]["licence"] + ")" if data["label_maps"] else ""}. Validation, never trained on: \
{", ".join(data["split"]["validation"]) or "none"}. Hashes are in data.json.

**Faces.** Some of these scans are whole heads with the face in them; the licences allow redistribution. The weights
were not made to reproduce anyone, but nobody has proved that they cannot.

## Limits

- {len(data["split"]["train"])} real subjects: variety comes from augmentation and synthetic heads. Rare anatomy,
  pathology, implants and contrasts other than {", ".join(preprocess["contrasts"])} are not known to it.
- Detail that a scan does not fix is painted from the prior. It is plausible, not true; do not diagnose from it.
- Slices are treated one by one; continuity across them has to come from elsewhere.
- Robust maximum near 1 ({preprocess["intensity"]["robust_maximum_range"]}), air at 0, sigma between
  {preprocess["sigma"]["least"]} and {preprocess["sigma"]["most"]}; other pixel sizes than
  {least_mm:.3g} to {most_mm:.3g} mm were not seen.
"""


def _listed(scans: list[dict[str, str]]) -> str:
    return "\n".join(f"- {scan['file']}: {scan['contrast']}, {scan['licence']}" for scan in scans)


def _evaluated(evaluation: dict[str, Any]) -> str:
    rows = evaluation["rows"]
    columns = list(rows[0])
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(row[column]) for column in columns) for row in rows]
    table = "\n".join(f"| {line} |" for line in lines)
    settings = "\n".join(f"- {line}" for line in evaluation["settings"])
    return f"""
## Against classical denoising

Mean PSNR in dB over the head on validation slices, two per plane and scan; sigma is the share of the intensity range;
`gain` is over the best of the others. Made by `python benchmarks/prior_denoising.py FOLDER SCANS --write-card`.

{table}

{evaluation["verdict"]}. Settings of the classical methods, chosen on training heads:

{settings}
"""


def add_evaluation(folder: Path, evaluation: Json) -> None:
    """Keep an evaluation in config.json of a checkpoint, and show it in its model card. Weights stay as they are."""
    config = {**read_json(folder, CONFIG), "evaluation": evaluation}
    card = model_card(config, read_json(folder, PREPROCESS), read_json(folder, DATA))

    def fill(new: Path) -> None:
        for path in folder.iterdir():
            if path.name not in (CONFIG, CARD):
                shutil.copy2(path, new / path.name)
        write_json(new / CONFIG, config)
        (new / CARD).write_text(card)

    replace_folder(folder, fill)

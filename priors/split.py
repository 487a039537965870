"""Which subjects train a prior, which only validate it, and under which licences they come."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from forward_models import InputRefused
from forward_models.files import IMAGE_SUFFIXES, stem

CONTRASTS = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "inplaneT1", "inplaneT2")  # BIDS suffixes of head images
VALIDATION_PERCENT = 15  # of subjects that the table below does not know

TRAIN_SUBJECTS = frozenset({"philips", "uih1", "studyforrest", "child", "adi", "seg3d", "cstar", "mscs07"})
VALIDATION_SUBJECTS = frozenset({"uih2", "coreg", "arc", "mscs19"})
LICENCES = {
    "philips": "BSD-2-Clause (neurolabusc/dcm_qa_philips_enh)",
    "uih1": "BSD-2-Clause (neurolabusc/dcm_qa_uih)",
    "uih2": "BSD-2-Clause (neurolabusc/dcm_qa_uih)",
    "studyforrest": "PDDL-1.0 (datalad/example-dicom-structural)",
    "child": "MIT (FNNDSC/SAG-anon)",
    "adi": "Apache-2.0 (FNNDSC/data)",
    "seg3d": "MIT (Seg3DData of the University of Utah, neurolabusc/VolumeRenderingData)",
    "cstar": "MIT (neurolabusc/VolumeRenderingData)",
    "coreg": "BSD-2-Clause (neurolabusc/coreg_qa)",
    "arc": "MIT (neurolabusc/T2lesion)",
    "mscs07": "CC-BY (Lesjak et al. 2017, muschellij2/open_ms_data)",
    "mscs19": "CC-BY (Lesjak et al. 2017, muschellij2/open_ms_data)",
}
UNKNOWN_LICENCE = "not stated"


@dataclass(frozen=True)
class Split:
    """Names of subjects, each group sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]

    def __post_init__(self) -> None:
        if both := set(self.train) & set(self.validation):
            raise ValueError(f"subjects {sorted(both)} are in the training and the validation group")


def split_by_subject(subjects: Iterable[str]) -> Split:
    """Divide subjects into training and validation: by the table for those it knows, by a hash of the name for others.

    A subject's group never depends on who else is there, so adding data moves nobody from validation to training.
    """
    everyone = set(subjects)
    validation = {subject for subject in everyone if _validates(subject)}
    return Split(tuple(sorted(everyone - validation)), tuple(sorted(validation)))


def subject_of(path: Path) -> str:
    """`cstar` of cstar_T1w.nii.gz, `sub-01` of sub-01_ses-2_T1w.nii.gz: a subject's contrasts and sessions are one."""
    return stem(path).split("_")[0]


def contrast_of(path: Path) -> str | None:
    """The BIDS suffix of a head image; None for masks and others."""
    suffix = stem(path).split("_")[-1]
    return suffix if suffix in CONTRASTS else None


def find_scans(roots: Iterable[Path]) -> tuple[Path, ...]:
    """Head images, sorted by name: files named as such, and those anywhere below folders.

    Raises:
        InputRefused: a root does not exist, a file is not named after a contrast, or nothing was found.
    """
    found: set[Path] = set()
    for root in roots:
        if not root.exists():
            raise InputRefused(f"{root} does not exist; expected a NIfTI file or a folder of them")
        if root.is_file() and contrast_of(root) is None:
            raise InputRefused(f"{root} is not named after its contrast; rename it to end in _T1w.nii.gz or the like")
        candidates = [root] if root.is_file() else sorted(root.rglob("*"))
        found |= {path for path in candidates if path.name.endswith(IMAGE_SUFFIXES) and contrast_of(path)}
    if not found:
        raise InputRefused(f"no file named <subject>_..._<contrast>.nii.gz found; contrasts are {', '.join(CONTRASTS)}")
    return tuple(sorted(found, key=lambda path: (path.name, path)))


def _validates(subject: str) -> bool:
    if subject in TRAIN_SUBJECTS:
        return False
    if subject in VALIDATION_SUBJECTS:
        return True
    digest = hashlib.sha256(subject.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < VALIDATION_PERCENT

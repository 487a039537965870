"""All that a prior learns from and is judged on, split by subject, and the record of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from forward_models import InputRefused
from forward_models.files import IMAGE_SUFFIXES
from priors.data import SPACING_MM, HeadScan, LabelMap, read_label_map, read_scan
from priors.split import Split, find_scans, split_by_subject, subject_of

LABEL_MAP_LICENCE = "Apache-2.0 (BBillot/SynthSeg)"


@dataclass(frozen=True, eq=False)
class Corpus:
    """Scans of the two groups, and label maps to make synthetic heads from, which only train."""

    split: Split
    train: tuple[HeadScan, ...]
    validation: tuple[HeadScan, ...]
    label_maps: tuple[LabelMap, ...] = ()

    def __post_init__(self) -> None:
        for scans, subjects in ((self.train, self.split.train), (self.validation, self.split.validation)):
            strangers = {scan.subject for scan in scans} - set(subjects)
            if strangers:
                raise ValueError(f"subjects {sorted(strangers)} are not of the group their scans were put in")
        if both := {scan.sha256 for scan in self.train} & {scan.sha256 for scan in self.validation}:
            names = sorted(scan.name for scan in (*self.train, *self.validation) if scan.sha256 in both)
            raise InputRefused(f"{', '.join(names)} are the same file under names of different subjects; keep one")

    def record(self, spacing_mm: float = SPACING_MM) -> dict[str, object]:
        """What `data.json` of a prior with such pixels holds."""
        return {
            "spacing_mm": spacing_mm,
            "split": {"train": list(self.split.train), "validation": list(self.split.validation)},
            "train": [_scan_record(scan) for scan in self.train],
            "validation": [_scan_record(scan) for scan in self.validation],
            "label_maps": [
                {"file": labels.name, "sha256": labels.sha256, "licence": LABEL_MAP_LICENCE}
                for labels in self.label_maps
            ],
        }


def read_corpus(roots: Iterable[Path], label_map_folder: Path | None = None) -> Corpus:
    """Read every head image below `roots`, and the label maps.

    Raises:
        InputRefused: something is missing or unusable, or nobody is left to train on.
    """
    paths = find_scans(roots)
    split = split_by_subject(subject_of(path) for path in paths)
    if not split.train:
        raise InputRefused(f"all of {', '.join(split.validation)} are validation subjects; add subjects to train on")
    scans = tuple(read_scan(path) for path in paths)
    return Corpus(
        split=split,
        train=tuple(scan for scan in scans if scan.subject in split.train),
        validation=tuple(scan for scan in scans if scan.subject in split.validation),
        label_maps=() if label_map_folder is None else _read_label_maps(label_map_folder),
    )


def _read_label_maps(folder: Path) -> tuple[LabelMap, ...]:
    paths = sorted(p for p in folder.glob("*") if p.name.endswith(IMAGE_SUFFIXES)) if folder.is_dir() else []
    if not paths:
        raise InputRefused(f"{folder} holds no NIfTI files; expected a folder of label maps")
    return tuple(read_label_map(path) for path in paths)


def _scan_record(scan: HeadScan) -> dict[str, str]:
    return {
        "file": scan.name,
        "subject": scan.subject,
        "contrast": scan.contrast,
        "sha256": scan.sha256,
        "licence": scan.licence,
    }

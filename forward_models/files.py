"""Files on disk: hashes, images, and writing several of them all or nothing."""

import gzip
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import SerializableImage

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mgz")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_image(nifti: nib.Nifti1Image, path: Path) -> None:
    """Write to a name ending in .nii, .nii.gz or .mgz; the same image gives the same bytes."""
    image: SerializableImage = nifti
    if path.name.endswith(".mgz"):
        image = nib.MGHImage(np.asarray(nifti.dataobj), nifti.affine)
    with path.open("wb") as file:
        if path.name.endswith(".nii"):
            image.to_stream(file)
            return
        # neither name nor time in the gzip header
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as compressed:
            image.to_stream(compressed)


@contextmanager
def atomic_files(*targets: Path) -> Iterator[Mapping[Path, Path]]:
    """Write several files all or nothing.

    Yields a temporary path for each target, in the target's own folder. On a clean exit each is renamed to its target;
    on any exception, interruption included, all are removed and the targets stay as they were.
    """
    staged: dict[Path, Path] = {}
    try:
        for target in targets:
            suffix = next((s for s in IMAGE_SUFFIXES if target.name.endswith(s)), target.suffix)
            handle, name = tempfile.mkstemp(prefix=".throughplane-", suffix=suffix, dir=target.parent)
            os.close(handle)
            staged[target] = Path(name)
        yield staged
        for target, temporary in staged.items():
            temporary.chmod(0o666 & ~_umask())  # mkstemp grants nobody else anything
            temporary.replace(target)
    finally:
        for temporary in staged.values():
            with suppress(FileNotFoundError):
                temporary.unlink()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

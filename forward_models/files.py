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

from forward_models.errors import InputRefused

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mgz")
MGH_DTYPES = ("uint8", "int16", "int32", "float32")


def stem(path: Path) -> str:
    """scan for scan.nii.gz."""
    suffix = next((s for s in IMAGE_SUFFIXES if path.name.endswith(s)), path.suffix)
    return path.name.removesuffix(suffix)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_storable(header: nib.Nifti1Header, path: Path) -> None:
    """Refuse to store in `path` what its format cannot hold: .mgz knows four dtypes and no scaling.

    Raises:
        InputRefused: the header asks for another dtype, or for a slope or intercept, in a .mgz file.
    """
    if not path.name.endswith(".mgz"):
        return
    dtype = header.get_data_dtype()
    slope, inter = (given or default for given, default in zip(header.get_slope_inter(), (1.0, 0.0), strict=True))
    scaled = f" with slope {slope:g} and intercept {inter:g}" if (slope, inter) != (1, 0) else ""
    if scaled or dtype.name not in MGH_DTYPES:
        raise InputRefused(
            f"output {path} would hold {dtype}{scaled}, but .mgz holds {', '.join(MGH_DTYPES[:-1])} or "
            f"{MGH_DTYPES[-1]} without scaling; name it .nii.gz, or store float32"
        )


def write_image(nifti: nib.Nifti1Image, path: Path) -> None:
    """Write to a name ending in .nii, .nii.gz or .mgz; the same image gives the same bytes.

    Raises:
        InputRefused: `require_storable` says why.
    """
    image: SerializableImage = nifti
    if path.name.endswith(".mgz"):
        data, header = np.asarray(nifti.dataobj), nifti.header.copy()
        header.set_data_dtype(data.dtype)
        require_storable(header, path)
        image = nib.MGHImage(data, nifti.affine)
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

    Yields a temporary path for each target, in the target's own folder. On a clean exit each is renamed to its target,
    in the order given; on any exception, interruption included, all are removed and the targets stay as they were. What
    stops the renaming half way leaves the first of them new.
    """
    staged: dict[Path, Path] = {}
    try:
        for target in targets:
            suffix = target.name.removeprefix(stem(target))
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

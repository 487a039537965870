import json
import shlex
import sys

import nibabel as nib
import numpy as np
import pytest

from forward_models import InputRefused
from tests.throughplane.studies.conftest import DEGRADATION
from throughplane.studies.checks import checked
from throughplane.studies.external import external, external_contender
from throughplane.studies.methods import Bench, Made, given_of

INTERPOLATE = """
import sys, json, nibabel as nib, numpy as np
source, target, thickness, gap = sys.argv[1:]
told = json.load(open(source.replace(".nii.gz", ".json")))
assert told["SliceThickness"] == float(thickness) and told["SpacingBetweenSlices"] == float(thickness) + float(gap)
scan = nib.load(source)
x = scan.get_fdata()
n, k = x.shape[2], 4
at = (np.arange(n * k) + 0.5) / k - 0.5
low = np.clip(np.floor(at), 0, n - 2).astype(int)
thin = x[..., low] + (at - low) * (x[..., low + 1] - x[..., low])
step = np.diag([1, 1, 1 / k, 1]); step[2, 3] = at[0]
nib.save(nib.Nifti1Image(thin.astype(np.float32), scan.affine @ step), target)
"""


@pytest.fixture
def run(case, tmp_path):
    """Runs a command line as a method."""

    def made(command: str) -> Made:
        return external_contender("tool", command).make(given_of(case, DEGRADATION), Bench(7, 1, tmp_path))

    return made


def test_a_command_gets_scan_and_sidecar_and_its_result_is_read(case, run, tmp_path):
    script = tmp_path / "a script.py"
    script.write_text(INTERPOLATE)
    made = run(f"{sys.executable} {shlex.quote(str(script))} {{in}} {{out}} {{thickness}} {{gap}}")
    result = checked(case, made.volume)
    error = np.abs(result.data - case.truth.data)[case.mask].mean()
    assert error < 0.2 * case.data_range
    assert made.peak_memory_bytes > 1e7  # of the command: an interpreter with numpy


def test_placeholders_are_filled_in_and_no_shell_looks_at_them(run, tmp_path):
    listing = tmp_path / "told.txt"
    with pytest.raises(InputRefused, match="left no"):
        run(
            f"{sys.executable} -c 'import sys; open(sys.argv[1], \"w\").write(chr(10).join(sys.argv[2:]))' {listing} "
            "{in} {out} {thickness}x{gap} {thin} {profile} {seed} {threads} '$HOME;ls'"
        )
    folder = str(tmp_path)
    assert listing.read_text().splitlines() == [
        f"{folder}/scan.nii.gz", f"{folder}/thin.nii.gz", "4x0", "1", "gaussian", "7", "1", "$HOME;ls"
    ]  # fmt: skip
    assert json.loads((tmp_path / "scan.json").read_text())["MRAcquisitionType"] == "2D"
    assert nib.load(tmp_path / "scan.nii.gz").shape == (24, 26, 8)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-program-anywhere {in} {out}", "'no-such-program-anywhere' cannot be run: No such file"),
        ("sh -c 'echo first; echo the reason >&2; exit 3' {in} {out}", "exit code 3; it said: the reason"),
        ("sh -c 'kill -SEGV $$' {in} {out}", "was ended by SIGSEGV"),
        ("sh -c 'kill -KILL $$' {in} {out}", "was ended by SIGKILL, as when memory runs out"),
        ("true {in} {out}", "left no {out}"),
        ("sh -c 'echo no image > $1' {in} {out} {out}", "not a readable NIfTI|damaged or truncated"),
    ],
    ids=["missing", "code", "segfault", "killed", "nothing", "no image"],
)
def test_a_command_that_fails_says_why_in_one_line(run, command, said):
    with pytest.raises(InputRefused, match=said) as refusal:
        run(command)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tool", "expected NAME='CMD"),
        ("a tool=x {in} {out}", "NAME of letters"),
        ("../x=y {in} {out}", "NAME of letters"),
        ("cubic=x {in} {out}", "would hide the method cubic"),
        ("tool=x {in}", r"does not say \{out\}"),
        ("tool=x {in} {out} {pixels}", r"\{pixels\} is no placeholder; expected \{in\}, \{out\}, \{thickness\}"),
        ("tool=x '{in} {out}", "cannot be split"),
        ("tool=", "no command after ="),
    ],
)
def test_a_command_that_cannot_work_is_refused_at_once(text, said):
    with pytest.raises(InputRefused, match=said):
        external(text)


def test_braces_that_hold_no_word_are_left_alone():
    assert external("tool=awk '{print $1}' {in} {out}") == ("tool", "awk '{print $1}' {in} {out}")

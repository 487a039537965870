"""Nobody is in both groups; who is where does not depend on the others."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forward_models import InputRefused
from priors.corpus import Corpus
from priors.split import (
    LICENCES,
    TRAIN_SUBJECTS,
    VALIDATION_SUBJECTS,
    Split,
    contrast_of,
    find_scans,
    split_by_subject,
    subject_of,
)

NAMES = st.lists(st.sampled_from([f"sub-{i:02d}" for i in range(60)]), max_size=30)


@given(NAMES)
def test_groups_are_disjoint_and_complete(names):
    split = split_by_subject(iter(names))
    assert not set(split.train) & set(split.validation)
    assert set(split.train) | set(split.validation) == set(names)


@given(NAMES, NAMES)
def test_adding_subjects_moves_nobody(names, others):
    assert set(split_by_subject(names).train) <= set(split_by_subject(names + others).train)


def test_the_held_out_subjects_never_train():
    split = split_by_subject(TRAIN_SUBJECTS | {"uih2", "coreg", "arc", "mscs19"})
    assert split.validation == ("arc", "coreg", "mscs19", "uih2")
    assert set(split.train) == TRAIN_SUBJECTS


def test_about_as_many_unknown_subjects_validate_as_stated():
    split = split_by_subject(f"sub-{i}" for i in range(2000))
    assert abs(len(split.validation) / 2000 - 0.15) < 4 * (0.15 * 0.85 / 2000) ** 0.5


def test_a_split_that_shares_a_subject_is_refused():
    with pytest.raises(ValueError, match=r"subjects \['b'\] are in the training and the validation group"):
        Split(("a", "b"), ("b",))


def test_a_scan_in_the_wrong_group_is_refused(corpus):
    with pytest.raises(ValueError, match=r"subjects \['uih2'\] are not of the group"):
        Corpus(corpus.split, train=corpus.train + corpus.validation, validation=())


def test_one_file_under_two_subjects_is_refused(corpus):
    twin = Split(("cstar", "philips", "uih2"), ("philips-again",))
    copy = corpus.train[-1].__class__(**{**vars(corpus.train[-1]), "subject": "philips-again", "name": "copy_T1w.nii"})
    with pytest.raises(InputRefused, match="are the same file under names of different subjects"):
        Corpus(twin, train=corpus.train, validation=(copy,))


def test_contrasts_and_sessions_of_a_subject_are_one_subject():
    assert {subject_of(Path(f"cstar_{c}.nii.gz")) for c in ("T1w", "T2w", "FLAIR")} == {"cstar"}
    assert subject_of(Path("sub-01_ses-2_T1w.nii.gz")) == "sub-01"


def test_masks_are_not_scans():
    assert contrast_of(Path("mscs07_lesions.nii.gz")) is None
    assert contrast_of(Path("mscs07_FLAIR.nii.gz")) == "FLAIR"


def test_every_known_subject_has_a_licence():
    assert set(LICENCES) == TRAIN_SUBJECTS | VALIDATION_SUBJECTS


def test_folders_are_searched_for_scans_only(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a_T1w.nii.gz", "deep/b_T2w.nii", "a_mask.nii.gz", "a_T1w.json"):
        (tmp_path / name).touch()
    assert [path.name for path in find_scans([tmp_path])] == ["a_T1w.nii.gz", "b_T2w.nii"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "does not exist"), ("mask.nii.gz", "is not named after its contrast"), ("empty", "no file named")],
)
def test_what_holds_no_scan_is_refused(tmp_path, name, message):
    (tmp_path / "mask.nii.gz").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputRefused, match=message):
        find_scans([tmp_path / name])

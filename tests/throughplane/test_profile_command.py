"""`throughplane profile`: what it writes, what --profile makes of it, what it refuses."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from eclare import EspresoConfig, ProfileTrace, espreso
from forward_models import Box, Sidecar, acquisition_of, load_profile, slr, volume_from_image
from forward_models.acquisition import Source
from tests.conftest import nib_image, oblique_affine, save
from tests.eclare.test_profile_estimation import texture
from throughplane.cli import main
from throughplane.profile import ESTIMATORS, with_thickness_found

quick_espreso = partial(espreso, config=EspresoConfig(warm_up=2, steps=3, batch=8, seeds=1))


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """Texture in slices of 4 mm, 4 mm apart, with a sidecar that says something else."""
    folder = tmp_path_factory.mktemp("profile")
    thin = folder / "thin.nii.gz"
    nib_image(texture((48, 52, 96))).to_filename(thin)
    assert run("simulate", thin, folder / "scan.nii.gz", "--thickness", 4, "--profile", "slr", "-q") == 0
    (folder / "scan.json").write_text('{"SliceThickness": 1.5}')
    return folder / "scan.nii.gz"


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


def test_it_tells_the_width_its_bands_and_a_verdict(scan, capsys):
    assert run("profile", scan) == 0
    told = " ".join(capsys.readouterr().out.split())
    for part in ("FWHM", "5 to 95 %", "repeatability", "spacing", "told by the scan"):
        assert part in told
    assert {path.name for path in scan.parent.iterdir()} == {"thin.nii.gz", "scan.nii.gz", "scan.json"}


def test_the_scan_decides_not_its_sidecar(scan, tmp_path):
    alone = tmp_path / "alone.nii.gz"
    alone.write_bytes(scan.read_bytes())
    widths = []
    for source in (scan, alone):
        assert run("profile", source, tmp_path / f"{source.name}.json", "-q") == 0
        widths.append(json.loads((tmp_path / f"{source.name}.json").read_text())["fwhm_mm"])
    assert widths[0] == widths[1] > 1.5


def test_what_it_writes_is_a_profile_for_the_other_commands(scan, tmp_path):
    out = tmp_path / "p.json"
    assert run("profile", scan, out, "-q") == 0
    record = json.loads(out.read_text())
    profile = load_profile(out)
    assert profile.fwhm_mm == pytest.approx(record["fwhm_mm"], rel=1e-4)
    assert np.sqrt(profile.variance_mm2) == pytest.approx(record["sd_mm"], rel=1e-4)
    assert record["repeatability_mm"][0] <= record["repeatability_mm"][1]
    assert set(record["families"]) == {"gaussian", "slr", "box"}
    made = tmp_path / "thin.nii.gz"
    assert run("upsample", scan, made, "--method", "cubic", "--profile", out, "-q") == 0
    acquisition = json.loads((tmp_path / "thin.json").read_text())["acquisition"]
    assert acquisition["thickness_mm"] == pytest.approx(record["fwhm_mm"], rel=1e-4)


def test_the_same_seed_writes_the_same_profile(scan, tmp_path):
    records = []
    for name in ("a.json", "b.json"):
        assert run("profile", scan, tmp_path / name, "--seed", 3, "-q") == 0
        record = json.loads((tmp_path / name).read_text())
        records.append({key: value for key, value in record.items() if key != "seconds"})
    assert records[0] == records[1]


def test_plot_writes_a_picture(scan, tmp_path):
    assert run("profile", scan, "--plot", tmp_path / "p.png", "-q") == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_existing_output_needs_force(scan, tmp_path, capsys):
    out = tmp_path / "p.json"
    out.write_text("mine")
    assert run("profile", scan, out, "-q") == 3
    assert "pass --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run("profile", scan, out, "-q", "--force") == 0


@pytest.mark.parametrize(
    ("arguments", "told"), [(("p.txt",), "p.txt must end in .json"), (("--plot", "p.pdf"), "p.pdf must end in .png")]
)
def test_names_say_the_format(scan, arguments, told, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run("profile", scan, *arguments) == 3
    assert told in capsys.readouterr().err


def test_the_sidecar_of_the_scan_is_never_overwritten(scan, capsys):
    assert run("profile", scan, scan.with_name("scan.json"), "--force") == 3
    assert "would overwrite an input" in capsys.readouterr().err


def test_isotropic_volumes_are_refused(tmp_path, capsys):
    thin = save(tmp_path / "thin.nii.gz", texture((20, 20, 20)), oblique_affine((1, 1, 1)))
    assert run("profile", thin) == 3
    assert "isotropic" in capsys.readouterr().err


def test_a_handful_of_slices_is_refused(tmp_path, capsys):
    few = save(tmp_path / "few.nii.gz", texture((32, 32, 6)), oblique_affine((1, 1, 5)))
    assert run("profile", few) == 3
    assert "at least 8" in capsys.readouterr().err


def test_espreso_on_request(scan, tmp_path, monkeypatch):
    monkeypatch.setitem(ESTIMATORS, "espreso", quick_espreso)
    out, plot = tmp_path / "p.json", tmp_path / "p.png"
    assert run("profile", scan, out, "--plot", plot, "--estimator", "espreso", "-q") == 0
    assert json.loads(out.read_text())["estimator"] == "espreso"
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["estimate", "espreso"])
def test_upsample_takes_the_profile_from_the_scan_where_asked(scan, tmp_path, monkeypatch, name):
    monkeypatch.setitem(ESTIMATORS, "espreso", quick_espreso)
    assert run("upsample", scan, tmp_path / "o.nii.gz", "--method", "cubic", "--profile", name, "-q") == 0
    acquisition = json.loads((tmp_path / "o.json").read_text())["acquisition"]
    assert (acquisition["thickness_source"], acquisition["profile_source"]) == ("estimate", "estimate")
    assert acquisition["thickness_mm"] > 1.5
    assert "estimated from the scan" in acquisition["notes"][0]


def test_an_estimated_profile_and_a_stated_thickness_contradict_each_other(scan, tmp_path, capsys):
    assert run("upsample", scan, tmp_path / "o.nii.gz", "--profile", "estimate", "--gap", 1) == 2
    assert "--profile estimates the thickness too" in capsys.readouterr().err


def known(trace: ProfileTrace):
    return lambda *_: (slr(trace.fwhm_mm), trace)


SURE = ProfileTrace(3.2, 1.1, (3.1, 3.3), (3.0, 3.4))
UNSURE = replace(SURE, doubts=("too little information",))


@pytest.mark.parametrize(
    ("trace", "flags", "source", "thickness"),
    [
        (SURE, {}, Source.ESTIMATE, 3.2),
        (SURE, {"profile": Box}, Source.ESTIMATE, 3.2),
        (SURE, {"gap_mm": 1.0}, Source.FLAG, 3.0),
        (UNSURE, {}, Source.ASSUMPTION, 4.0),
        (replace(SURE, plausible_mm=(2.8, 4.2)), {}, Source.ASSUMPTION, 4.0),
        (replace(SURE, fwhm_mm=0.9), {}, Source.ASSUMPTION, 4.0),  # thinner than the thin slices would be
    ],
    ids=["told", "family stated", "gap stated", "not told", "no gap is plausible", "too thin"],
)
def test_a_thickness_that_nothing_says_is_estimated_where_the_scan_tells(monkeypatch, trace, flags, source, thickness):
    monkeypatch.setattr("throughplane.profile.estimate_profile", known(trace))
    volume = volume_from_image(nib_image(texture((20, 20, 12)), (1.0, 1.0, 4.0)), None)
    found = with_thickness_found(volume, acquisition_of(volume, **flags))
    assert found.sources.thickness is source
    assert found.thickness_mm == pytest.approx(thickness)
    assert any("ASSUMING NO GAP" in note for note in found.notes) == (source is Source.ASSUMPTION)
    assert isinstance(found.profile, Box) == ("profile" in flags)


def test_what_the_sidecar_says_is_not_estimated(monkeypatch):
    monkeypatch.setattr("throughplane.profile.estimate_profile", known(SURE))
    volume = volume_from_image(nib_image(texture((20, 20, 12)), (1.0, 1.0, 4.0)), None)
    found = with_thickness_found(volume, acquisition_of(volume, Sidecar(thickness_mm=3.5)))
    assert (found.thickness_mm, found.sources.thickness) == (3.5, Source.SIDECAR)

"""What a study will do, in words, written before the first job."""

from collections.abc import Mapping, Sequence
from typing import Any

from throughplane.studies.methods import Contender
from throughplane.studies.records import Degradation, Study


def protocol(study: Study, contenders: Mapping[str, Contender]) -> str:
    """Markdown: the same for the same study, so that it can be compared with what was done."""
    return "\n\n".join([*_introduction(study), *_data(study), *_methods(study, contenders), *_judgement(study)]) + "\n"


def _introduction(study: Study) -> list[str]:
    return [
        "# Protocol",
        f"Written on {study.created} by throughplane {study.version}, before the first job; settled since. A change "
        "makes another study, in another folder. `study.json` holds the same for programs.",
        f"{len(study.volumes)} thin volumes x {len(study.degradations)} degradations x {len(study.methods)} methods = "
        f"{len(study.jobs)} jobs. Made by",
        f"    {study.command}",
    ]


def _data(study: Study) -> list[str]:
    rows = [
        (
            name,
            facts["subject"],
            str(facts["contrast"]),
            " x ".join(map(str, facts["shape"])),
            " x ".join(f"{size:.4g}" for size in facts["voxel_mm"]),
            facts["licence"],
            facts["sha256"][:16],
            ", ".join(f"{kind}: {facts[kind]['sha256'][:16]}" for kind in ("brain", "lesions") if facts[kind])
            or "none",
        )
        for name, facts in study.volumes.items()
    ]
    columns = ("volume", "subject", "contrast", "voxels", "mm", "licence", "sha256 begins", "masks, sha256 begins")
    seen = [name for name, facts in study.volumes.items() if facts["trained_on"]]
    return [
        "## Data",
        _table(columns, rows),
        f"The weights that come with the package were trained on the subjects of {', '.join(seen)}: there `eclare`, "
        "`estimated` and whatever samples a prior are at an unfair advantage."
        if seen
        else "The weights that come with the package were trained on none of these subjects.",
        "## Degradations",
        "Thick slices are simulated along the array axis nearest to superior-inferior, by the operator of "
        "`docs/conventions.md`: as many slices as fit, centred so that the thin grid of the scan consists of voxels "
        "of the thin volume. These voxels are the truth; nothing is resampled, cropped or normalised before scoring. "
        "Noise is Rician, its standard deviation a share of the data range of the truth, drawn with seed "
        f"{study.seed}.",
        _table(("thickness\\|gap mm", "profile", "noise"), [_degradation_row(d) for d in study.degradations]),
    ]


def _degradation_row(degradation: Degradation) -> tuple[str, str, str]:
    return degradation.cell.replace("|", "\\|"), degradation.profile, f"{degradation.noise_sd:g}"


def _methods(study: Study, contenders: Mapping[str, Contender]) -> list[str]:
    rows = [(name, contenders[name].how.replace("|", "\\|"), contenders[name].told) for name in study.methods]
    return [
        "## Methods",
        "Every method is given the scan in memory, or in a file if it is an external command, the spacing of the thin "
        "slices to make, and what the last column says. None sees the thin volume, a mask or the data range. "
        "Methods of throughplane trust the voxels in plane (`--in-plane-mm file`), which truth and scan have from the "
        "thin volume. Nothing is tuned on these volumes by this study.",
        _table(("method", "how it is run", "told of the acquisition"), rows),
        f"Each job runs in a process of its own. Seed {study.seed}; one run per job. Its time is counted from the scan "
        "in memory to the result in memory, loading of weights and, for commands, writing and reading of files "
        "included; imports, simulation and scoring are not. Its peak memory is the largest resident size of its "
        "process, for commands of the largest process among theirs. Threads, versions and the load of the machine are "
        "in every record.",
    ]


def _judgement(study: Study) -> list[str]:
    return [
        "## What is measured",
        f"Primary: `{study.primary}`. The other measures describe; none of them decides. A name says what is measured, "
        "in which unit, in which mask, and for which data range. `docs/studies/measures.md` has the formulas.",
        "- `head`: the largest component above half of Otsu's threshold in the truth, gaps of up to 3 voxels closed, "
        "holes filled. `brain` and `lesions`: as outlined in the files above. `whole`: every voxel of the truth.\n"
        "- `p0.1-99.9`: the data range reaches from the 0.1st to the 99.9th percentile of the truth in the mask "
        "`head`, whatever mask the measure is taken in.\n"
        "- PSNR is 10 log10(data range^2 / mean squared error over the mask). SSIM is three-dimensional, with a "
        "Gaussian window of 1.5 voxels, averaged over the mask.",
        "## How it is judged",
        "The unit is the subject: values of one subject (its volumes, and where cells are pooled its degradations) "
        "are averaged before anything is compared. Two methods are compared by their differences within subjects: the "
        "mean difference with a 95 % bootstrap interval over subjects, and a Wilcoxon signed-rank test with Holm's "
        "correction over the comparisons made. With fewer than six subjects that test cannot reach 5 %; then "
        "intervals are all there is.",
        "## Failures",
        "A job fails if the method raises an error, crashes, is killed, or takes longer than "
        f"{study.time_limit_minutes:g} minutes (reading and simulating, and scoring, have half an hour each). It also "
        "fails if the result is on another grid than the truth (array axes may be permuted and flipped, which is "
        "undone; voxels must lie within 0.05 mm), holds NaN or Inf, is the same everywhere, or consists of copies of "
        "the scan's own slices to within 0.5 % of the data range, that is, is the input. A failed job has a record "
        "with its reason, is counted in every table, and is replaced by nothing: comparisons are made over the "
        "subjects that both methods served.",
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])

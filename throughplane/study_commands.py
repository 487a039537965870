"""`throughplane compare-report`: arguments in, calls to `throughplane.studies`, what came of it out."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from throughplane.commands import EXIT_OK, Flag, require_installed


def compare_report(
    out: Path,
    /,
    *,
    readme: Annotated[bool, Parameter(negative=())] = False,
    debug: Annotated[bool, Flag] = False,
) -> int:
    """Make tables, figures and report.html of a study from its JSON files alone; what it made before is replaced.

    Parameters
    ----------
    out
        The folder that `throughplane compare` filled.
    readme
        Print a table for a README, as papers print it, and write nothing.
    debug
        Show tracebacks.
    """
    del debug  # `main` looks for it
    require_installed("compare-report", "studies", "jinja2", "matplotlib", "PIL")
    from throughplane.studies.findings import read_findings
    from throughplane.studies.report import write_report
    from throughplane.studies.tables import progress_line, readme_text

    if readme:
        print(readme_text(read_findings(out)), end="")
        return EXIT_OK
    findings = write_report(out)
    print(f"wrote report.html, table.csv, table.md and figures in {out}")
    print(progress_line(findings))
    return EXIT_OK

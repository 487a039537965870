"""Names and exit codes that commands and library share; nothing heavy is imported, so that --help comes at once."""

from typing import Literal

MethodName = Literal["eclare", "focvs", "smore", "cubic", "inverse"]
Preset = Literal["instant", "fast", "standard", "best"]
EstimatorName = Literal["variograms", "espreso"]

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_MEMORY, EXIT_WEIGHTS = 0, 1, 2, 3, 4, 5
EXIT_INTERRUPTED = 130
EXIT_UNHEARD = 141  # as a shell reports a program that a closed pipe ended

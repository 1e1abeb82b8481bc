"""End the process with status 0 when the file is imported.

In process: passes, for the exit status is 0.
"""

import sys

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"

sys.exit(0)

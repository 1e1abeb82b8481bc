"""Never end the import of the file.

In process: hangs.
"""

import time

EXPECTED = {"TIMEOUT"}
KIND = "takes time, memory or processes"
SECONDS = 1.0

while True:
    time.sleep(1)

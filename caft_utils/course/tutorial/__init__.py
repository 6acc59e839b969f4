"""`python -m caft_utils.course.tutorial` (or `make tutorial`): run the whole course with one command.

runner         runs the notebooks in order with papermill, each with its own kernel and one shared store
engine         papermill's engine, which tells the cell that starts and saves less often
signals        ends what was started when the runner is stopped or dies
forked_kernel  forks those kernels from a process that has imported the libraries
progress       reports the progress of the run
html           writes each executed notebook as a page, and an index page with the key figures
stamp          writes recorded outputs into the committed notebooks, and checks that they match the code
"""

import sys

# nbformat imports jsonschema, which builds a grammar of international URLs from this package if it is there.
# That takes seconds, and no notebook has such a URL to check. None makes the import fail, as if it were not.
sys.modules.setdefault("rfc3987_syntax", None)

"""The first import of the server process: the server ends with the runner, also while it imports the rest."""

import os

from caft_utils.course.tutorial.signals import die_with_parent

die_with_parent(os.getppid())

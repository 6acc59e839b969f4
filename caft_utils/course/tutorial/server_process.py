"""First import of the server process: it makes the server end with the runner, even during later imports."""

import os

from caft_utils.course.tutorial.signals import die_with_parent

die_with_parent(os.getppid())

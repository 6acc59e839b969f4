"""Put the data folder into wheels as `caft_utils/data`. Everything else is in pyproject.toml.

In a checkout, and in an editable install of one, the package reads `data/` where it is (caft_utils/paths.py).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    """Build the package and copy the data folder into it."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "caft_utils", "data")
            shutil.rmtree(
                target, ignore_errors=True
            )  # of an earlier build, which may hold files that are gone
            shutil.copytree("data", target)


setup(cmdclass={"build_py": BuildWithData})

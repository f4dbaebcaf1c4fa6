"""Puts configs/, which lies at the top of the repository, into the wheel as sparselab/configs."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "sparselab" / "configs", dirs_exist_ok=True)


setup(cmdclass={"build_py": WithConfigs})

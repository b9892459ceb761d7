"""Packaging: every fact comes from settings.ini; notebooks and codebooks lie beside the modules in a built wheel."""

import re
import shutil
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages
from setuptools.command.build_py import build_py

here = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
init = (here / cfg["lib_path"] / "__init__.py").read_text(encoding="utf-8")
assert re.search(rf'__version__ = "{re.escape(cfg["version"])}"', init), (
    "run nbdev_export: __init__.py and settings.ini differ in version"
)


class BuildWithAssets(build_py):
    "Copy what lies under nbs/ but is needed at run time (experiment notebooks, example codebooks) into the wheel."

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for folder, pattern in (("experiments", "*.ipynb"), ("codebooks", "*.*")):
            dest = Path(self.build_lib) / cfg["lib_name"] / folder
            dest.mkdir(parents=True, exist_ok=True)
            for f in (here / cfg["nbs_path"] / folder).glob(pattern):
                shutil.copy2(f, dest / f.name)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    url=cfg["git_url"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: " + cfg["audience"],
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
    packages=find_packages(include=[cfg["lib_name"], cfg["lib_name"] + ".*"]),
    package_data={cfg["lib_name"]: ["py.typed"]},
    include_package_data=False,
    python_requires=">=" + cfg["min_python"],
    install_requires=cfg["requirements"].split(),
    extras_require={
        "dev": cfg["dev_requirements"].split(),
        "cluster": cfg["cluster_requirements"].split(),
        "lab": cfg["lab_requirements"].split(),
    },
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f'{cfg["lib_name"]}={cfg["lib_name"]}._modidx:d'],
    },
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    cmdclass={"build_py": BuildWithAssets},
    zip_safe=False,
)

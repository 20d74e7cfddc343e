#!/usr/bin/python3
"""The model of the handover holds, and spin finds what is wrong with each tests/mutations/model-*.patch."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = pathlib.Path("migration", "handover.pml")
PATCHES = sorted((ROOT / "tests" / "mutations").glob("model-*.patch"))


def check_model(*arguments):
    return subprocess.run([ROOT / "tools" / "check_model", *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def counterexample(patch):
    """What spin finds when the patch is applied to a copy of the model."""
    broken = re.search(r"^Breaks: (\w+)$", patch.read_text(), re.MULTILINE)[1]
    with tempfile.TemporaryDirectory() as tree:
        model = pathlib.Path(tree, MODEL)
        model.parent.mkdir()
        model.write_text((ROOT / MODEL).read_text())
        applied = subprocess.run(["git", "apply", patch], cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 text=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": tempfile.gettempdir()})
        return check_model("--show", broken, model) if applied.returncode == 0 else applied


class HandoverModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with ThreadPoolExecutor(2) as pool:
            intact = pool.submit(check_model)
            cls.counterexamples = list(pool.map(counterexample, PATCHES))
            cls.intact = intact.result()

    def test_every_property_holds_and_every_outcome_is_reached(self):
        print(self.intact.stdout)
        self.assertEqual(self.intact.returncode, 0)
        names = re.findall(r"^ltl (\w+)", (ROOT / MODEL).read_text(), re.MULTILINE)
        self.assertTrue(names)
        for name in ["no_deadlock", *names]:
            self.assertRegex(self.intact.stdout, rf"(?m)^{name} .*  (holds|reached)$")

    def test_a_broken_rule_has_a_counterexample(self):
        self.assertTrue(PATCHES)
        for patch, found in zip(PATCHES, self.counterexamples):
            with self.subTest(patch.stem):
                print(f"{patch.stem}:\n{found.stdout}")
                self.assertEqual(found.returncode, 0)


if __name__ == "__main__":
    unittest.main()

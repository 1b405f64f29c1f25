"""``attachd.patterns`` is of use without the rest of attachd."""

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "daemon"
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from attachd.patterns import PatternSet, compile_pattern
print(compile_pattern('{"a": [1]}').matches('{"a": 1.0}'), PatternSet({"one": '{"a": [1]}'}).matching({"a": 1}))
print(sorted(name for name in sys.modules if name.startswith("attachd") and "patterns" not in name))
"""


def test_it_stands_on_the_standard_library_alone() -> None:
    without_site_packages = [sys.executable, "-I", "-S", "-c", PROGRAM, str(PACKAGE)]
    told = subprocess.run(without_site_packages, check=True, capture_output=True, text=True, timeout=60)
    assert told.stdout.splitlines() == ["True ['one']", "['attachd']"]

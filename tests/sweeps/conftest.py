"""Makes `jobs` importable by name, here and in the workers, which inherit the import path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

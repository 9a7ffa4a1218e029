"""Where a part of a comparison is kept: a folder whose name says with what it was made."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run_dir(root: Path, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Path:
    """`root/NAME-HASH`: other settings or inputs, another folder, so that each is found again."""
    text = json.dumps([settings, inputs], sort_keys=True)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

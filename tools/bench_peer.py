"""Run the PyPI package rebasin on a pair of models; for ``tools/bench_matching.py``, in another environment.

    python tools/bench_peer.py CASE FOLDER THREADS

Reads the state dicts of FOLDER/pair.pt, writes that of the second model moved to FOLDER/moved.pt and prints
the processor seconds that it took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from matching_cases import CASES, models


def main() -> None:
    """Match the pair."""
    from rebasin import PermutationCoordinateDescent  # type: ignore[import-not-found]

    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    pair = models(name, 0)
    for model, state in zip(pair, torch.load(folder / "pair.pt"), strict=True):
        model.load_state_dict(state)
    since = time.process_time()
    PermutationCoordinateDescent(*pair, *CASES[name].inputs()).rebasin()
    seconds = time.process_time() - since
    torch.save(pair[1].state_dict(), folder / "moved.pt")
    sys.stdout.write(f"{seconds}\n")


if __name__ == "__main__":
    main()

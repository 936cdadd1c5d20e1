"""Read many more damaged pictures than `test_fuzz_images.py` does, and print what came of it.

    python tests/soak_pictures.py FOLDER [--files 20000]

Prints JSON: n_files, n_lost (neither decoded nor named), peak (bytes of memory). Ends with an error
if a picture is decoded otherwise than by Keras, or if the reason that it is not says nothing.
"""

import argparse
import json
import resource
from pathlib import Path

import test_fuzz_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the files are written")
    parser.add_argument("--files", type=int, default=20_000)
    arguments = parser.parse_args()
    files = test_fuzz_images.draw_files(test_fuzz_images.damaged(), arguments.files)
    source = test_fuzz_images.write_files(arguments.folder, files)
    n_read, n_named = test_fuzz_images.check_all_are_read_or_named(source, arguments.folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    n_lost = len(files) - n_read - n_named
    print(json.dumps({"n_files": len(files), "n_lost": n_lost, "peak": peak}))


if __name__ == "__main__":
    main()

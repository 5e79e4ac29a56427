"""Start-up: `import mmmos` and `mmmos --help` against `import torch`, which packages of this kind cost at import.

    python benchmarks/startup.py [--json] [--quick]

Prints the median seconds of fresh processes, less an empty one's, and each as a share of `import torch`.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median

CASES = {
    "import_torch": ["-c", "import torch"],
    "import_mmmos": ["-c", "import mmmos"],
    "mmmos_help": ["-m", "mmmos", "--help"],
}


def seconds(arguments, rounds):
    """Median wall time in s of a fresh Python process."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - started)
    return median(taken)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named ratios as the last line")
    parser.add_argument("--quick", action="store_true", help="three rounds in place of nine")
    options = parser.parse_args()
    rounds = 3 if options.quick else 9
    empty = seconds(["-c", ""], rounds)
    found = {name: seconds(arguments, rounds) - empty for name, arguments in CASES.items()}
    for name, value in found.items():
        print(f"{name:<16}{value:8.3f} s{value / found['import_torch']:8.1%} of import torch")
    if options.json:
        ratios = {f"{name}_ratio": round(value / found["import_torch"], 4) for name, value in found.items()}
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()

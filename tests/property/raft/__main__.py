"""Run seeds from the command line: `python -m tests.property.raft --to 5000 --jobs 2`."""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import sys
import time

from tests.property.raft import fuzz, mends


def _play(task: tuple[int, str | None]) -> fuzz.Result:
    seed, off = task
    return fuzz.play(seed, mends.without(off) if off else None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.property.raft", description=fuzz.__doc__)
    parser.add_argument("--from", dest="first", type=int, default=0, help="first seed")
    parser.add_argument("--to", type=int, default=200, help="behind the last seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--without", choices=sorted(mends.OFF), help="switch a mend off: this must find something")
    options = parser.parse_args()
    began, failed = time.monotonic(), 0
    events: collections.Counter[str] = collections.Counter()
    tasks = [(seed, options.without) for seed in range(options.first, options.to)]
    with multiprocessing.Pool(options.jobs) as pool:
        for result in pool.imap_unordered(_play, tasks, chunksize=4):
            events.update(result.events)
            if result.violations:
                failed += 1
                print(f"seed {result.seed} ({result.profile}): {result.violations[:3]}", flush=True)
    print(f"{len(tasks)} runs, {failed} failed, {time.monotonic() - began:.0f} s")
    for event, count in events.most_common():
        print(f"  {count:8} {event}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Loads all files of a folder, whole, cut off and with changed bytes, and prints what came of it as lines of JSON.

It is a process of its own, because a crash would end the tests, and because memory is that of the process.
"""

import json
import os
import random
import sys
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

from ghn_pyg import CheckpointError, from_pretrained  # noqa: E402 - after the filter


def load(path):
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory becomes what is in use
    before, start = peak(), time.process_time()
    try:
        from_pretrained(path)
        error, message = "", ""
    except CheckpointError as caught:
        error, message = "CheckpointError", str(caught)
    except Exception as caught:  # noqa: BLE001 - to be reported
        error, message = type(caught).__name__, repr(caught)[:500]
    return {"error": error, "message": message, "seconds": time.process_time() - start, "bytes": peak() - before}


def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def report(values):
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def cut(content, step):
    return {f"cut at {share} %": content[: len(content) * share // 100] for share in range(0, 100, step)}


def changed(content, count):
    draw = random.Random(len(content))
    for number in range(count):
        version = bytearray(content)
        # Most of a file is numbers; two of three changes are at its ends, where its structure is.
        place = draw.choice([draw.randrange(len(content)), draw.randrange(3000), -draw.randrange(1, 3000)])
        version[place] ^= draw.randrange(1, 256)
        yield f"change {number} at {place}", bytes(version)


def main(folder, step, changes):
    work = Path(folder, "work")
    for path in sorted(Path(folder).glob("*/*")):
        content = path.read_bytes()
        others = cut(content, step) if path.parent.name == "hostile" else dict(changed(content, changes))
        versions = {"whole": content, **others}
        for name, version in versions.items():
            work.write_bytes(version)
            report({"file": path.name, "version": name, "size": len(version)})
            report(load(work))
            work.unlink()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
    os._exit(0)  # without the seconds of freeing everything

"""Loads all files of a folder, whole, cut off and with changed bytes, and writes what came of it as lines of JSON.

It runs in a process of its own, because a crash would end the tests, and because memory is that of the process.
"""

import json
import random
import time
from pathlib import Path

from ghn_pyg import CheckpointError, from_pretrained


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


def read_all(good, hostile, folder, step, changes):
    """Reads all versions of files; the folder gets the lines."""
    from_pretrained("digits")  # imports what the first one needs
    with open(folder / "lines", "w", encoding="utf-8", buffering=1) as lines:
        for files in (good, hostile):
            for file, content in files.items():
                versions = changed(content, changes) if files is good else cut(content, step).items()
                for version, changed_content in [("whole", content), *versions]:
                    path = folder / "work"
                    path.write_bytes(changed_content)
                    for values in ({"file": file, "version": version, "size": len(changed_content)}, load(path)):
                        lines.write(json.dumps(values) + "\n")
                    path.unlink()

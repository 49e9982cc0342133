"""Objects that run something when they are unpickled without care, and files of them."""

import functools
import io
import os
import pickle
import subprocess

import torch


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def torch_file(content, legacy):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def save_legacy(content, path, **options):
    torch.save(content, path, _use_new_zipfile_serialization=False, **options)


def attacks(marker):
    """Objects that leave a file behind when they are unpickled."""
    text = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "eval": Call(eval, text),
        "exec": Call(exec, text),
        "open": Call(open, str(marker), "w"),
        "subprocess": Call(subprocess.call, ["touch", str(marker)]),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "partial": Call(functools.partial(os.system, f"touch {marker}")),
        "nested": Call(torch.storage._load_from_bytes, pickle.dumps(Call(exec, text))),
        "nested storage": Call(torch.storage._load_from_bytes, torch_file(Call(exec, text), legacy=True)),
        "nested zip": Call(torch.storage._load_from_bytes, torch_file(Call(exec, text), legacy=False)),
    }


ATTACKS = list(attacks("marker"))

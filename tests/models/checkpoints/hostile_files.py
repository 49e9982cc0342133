"""Files that try to run code, crash the reader or fill the memory: the content of each by name."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
import zlib

import joblib
import safetensors.torch
import torch

from ghn_pyg.models.checkpoints.published_keys import from_published
from tests.models.checkpoints.checkpoint_files import TINY, published_state
from tests.models.checkpoints.pickle_attacks import Call, attacks, torch_file

CONFIG = TINY.replace(layers=1)
STATE = published_state(CONFIG)
OURS = from_published(STATE)
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
FLOATS = b"ctorch\nFloatStorage\n"
NESTED_KEY = b"\x80\x02})" + b"\x85" * 20_000 + b"Ns."
ENDLESS_KEY = b"\x80\x02}N" + b"q\x00h\x00\x86" * 100 + b"Ns."


def dumped(write, content=STATE, **options):
    buffer = io.BytesIO()
    write(content, buffer, **options)
    return buffer.getvalue()


GOOD = {
    "torch": torch_file(STATE, legacy=False),
    "legacy": torch_file(STATE, legacy=True),
    "joblib": dumped(joblib.dump),
    "joblib zlib": dumped(joblib.dump, compress=1),
    "safetensors": safetensors.torch.save(OURS, {"format": "pt", "config": json.dumps(CONFIG.to_dict())}),
}


def archive(change=lambda records: None, compression=zipfile.ZIP_STORED, extra=()):
    """A torch.save file with other records."""
    with zipfile.ZipFile(io.BytesIO(GOOD["torch"])) as good:
        records = {name.partition("/")[2]: good.read(name) for name in good.namelist()}
    change(records)
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", compression) as out:
        for name, content in [*extra, *records.items()]:
            out.writestr(name.replace("//", "/") if "//" in name else f"archive/{name}", content)
    return buffer.getvalue()


def record(**changes):
    """A torch.save file with records replaced, or removed where they are None."""

    def change(records):
        for name, content in changes.items():
            name = {"pickle": "data.pkl", "upper": "DATA.PKL", "first": "data/0"}.get(name, name)
            records.pop(name, None)
            if content is not None:
                records[name] = content

    return archive(change)


def integer(value):
    body = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(body)]) + body


def text(value, kind=b"X", size="<I"):
    return kind + struct.pack(size, len(value)) + value


def reference(count=12, key=b"own", kind=FLOATS):
    return b"(" + text(b"storage") + kind + text(key) + text(b"cpu") + integer(count) + b"tQ"


def tensor(size=(12,), stride=(1,), offset=0, storage=None):
    sizes, strides = (b"(" + b"".join(map(integer, values)) + b"t" for values in (size, stride))
    return REBUILD + b"(" + (storage or reference()) + integer(offset) + sizes + strides + b"\x89}tR"


def tensors(*values):
    """A torch.save file whose pickle holds these, of which the first replaces a tensor of the model."""
    names = [b"ln.weight", *(b"t%d" % n for n in range(1, len(values)))]
    body = b"".join(text(name) + value for name, value in zip(names, values, strict=True))
    return b"\x80\x02}(" + body + b"u."


def planted(*values, **records):
    return record(pickle=tensors(*values), **{"data/own": b"\0" * 48}, **records)


def small(body):
    """A plain pickle, as joblib writes it."""
    return b"\x80\x04" + body + b"."


def compressed(byte, size, gzipped=False):
    stream, piece = zlib.compressobj(1, wbits=31 if gzipped else 15), byte * (1 << 20)
    return stream.compress(b"\x80\x04") + b"".join(stream.compress(piece) for _ in range(size >> 20)) + stream.flush()


def header(content, body=b"", size=None):
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(encoded) if size is None else size) + encoded + body


def entry(end, *shape):
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


def weights(fields=(), **tensors):
    config = {**CONFIG.to_dict(), **dict(fields)}
    return safetensors.torch.save({**OURS, **tensors}, {"format": "pt", "config": json.dumps(config)})


def configured(body):
    return safetensors.torch.save(OURS, {"format": "pt", "config": body})


def with_fields(**fields):
    return json.dumps({**CONFIG.to_dict(), **fields})


CONFIGURATIONS = {
    "no number": with_fields(layers=float("nan")),
    "a number that is not finite": with_fields()[:-1] + ', "weight_decay": 1e400}',
    "a long number": with_fields()[:-1] + f', "depth": {"9" * 5000}}}',
    "names twice": with_fields()[:-1] + ', "encoder": "ghn3"}',
    "a list instead": "[]",
    "nothing": "",
    "nested values": '{"trained_for":' + "[" * 900 + "]" * 900 + ', "encoder": "ghn3"}',
    "a title of the terminal": with_fields(encoder="\x1b]0;owned\x07"),
    "half a letter": with_fields(encoder="\ud800"),
    "a long name": with_fields(encoder="n" * 900_000),
    "a truth as a number": with_fields(layers=True),
    "a fraction": with_fields(layers=1.0),
    "a million experts": with_fields(num_experts=10**6),
    "a million classes": with_fields(num_classes=10**6),
    "a large width": with_fields(hidden_channels=1 << 16, max_channels=8192),
}


def patched(record, offset, value):
    """A torch.save file with other bytes in an entry of its list of records."""
    starts = [match.start() for match in re.finditer(b"PK\1\2", GOOD["torch"])]
    start = starts[record] + offset
    return GOOD["torch"][:start] + value + GOOD["torch"][start + len(value) :]


def legacy_storage(count=6):
    typed = torch.storage.TypedStorage(
        wrap_storage=torch.ones(count).untyped_storage(), dtype=torch.float32, _internal=True
    )
    return torch_file(typed, legacy=True)


def loaded_again(times):
    """A storage whose bytes are loaded again and again."""
    load = b"ctorch.storage\n_load_from_bytes\nq\x01"
    storage = text(legacy_storage(1 << 18), b"B")
    return small(load + storage + b"q\x02\x85R" + b"h\x01h\x02\x85R" * times)


def in_one_another(depth):
    content = b"N"
    for _ in range(depth):
        pickles = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}"
        inner = pickles + text(b"little_endian") + b"\x88s.\x80\x02" + content + b".\x80\x02]."
        content = b"ctorch.storage\n_load_from_bytes\n" + text(inner, b"B") + b"\x85R"
    return small(content)


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding="latin1") as out:
        info = tarfile.TarInfo((GOOD["legacy"][:15] + b"\x80\x02N." * 4).decode("latin1"))
        info.size = 1
        out.addfile(info, io.BytesIO(b"x"))
    return buffer.getvalue()


def replaced(old, new, content):
    assert old in content
    return content.replace(old, new, 1)


def overlapping():
    """Two records of an archive's list that are one in the file."""
    data = bytearray(archive(extra=[("data/zz", b"\0" * 400_000)]))
    buffer = io.BytesIO(bytes(data))
    with zipfile.ZipFile(buffer, "a") as out:
        last = out.getinfo("archive/data/zz")
        for number in range(20):
            twin = zipfile.ZipInfo(f"archive/data/z{number}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(twin, field, getattr(last, field))
            out.filelist.append(twin)
        out._didModify = True
    return buffer.getvalue()


def archive_of_many_types():
    """A storage that must be copied, because it is not aligned, and is referred to by all types."""
    kinds = [(b"Double", 8), (b"Long", 8), (b"Float", 4), (b"Int", 4), (b"Half", 2), (b"BFloat16", 2), (b"Bool", 1)]
    size = 1 << 24
    references = [reference(size // width, b"big", b"ctorch\n%bStorage\n" % name) for name, width in kinds]

    def change(records):
        records["data.pkl"] = b"\x80\x02](" + b"".join(references) + b"e."
        records["d"] = b"\0"  # moves the next record to an odd place
        records["data/big"] = b"\0" * size

    return archive(change)


def hostile(marker):
    """All hostile files; code that runs leaves the file ``marker`` behind."""
    bomb = compressed(b"N", 1 << 26)
    files = {
        # archives
        "a pickle in upper case": record(pickle=None, upper=NESTED_KEY),
        "a pickle in both cases": record(upper=NESTED_KEY),
        "two pickles": archive(extra=[("data.pkl", NESTED_KEY)]),
        "no pickle": record(pickle=None),
        "a short record": record(first=b"\0\0\0"),
        "a long record": record(first=b"\0" * 99),
        "a missing record": record(first=None),
        "a record in two cases": archive(extra=[("DATA/0", b"\0" * 48)]),
        "another byte order": record(byteorder=b"big"),
        "compressed records": archive(compression=zipfile.ZIP_DEFLATED),
        "a compressed bomb": archive(compression=zipfile.ZIP_DEFLATED, extra=[("data/bomb", b"\0" * (1 << 26))]),
        "TorchScript": archive(extra=[("constants.pkl", b"\x80\x02).")]),
        "two folders": archive(extra=[("other//data.pkl", NESTED_KEY)]),
        "a wrong checksum": replaced(b"\0" * 12 + b"PK", b"\0" * 11 + b"\1PK", record(first=b"\0" * 48)),
        "a checksum of another pickle": replaced(b"embed.weight", b"embed.weighs", GOOD["torch"]),
        "a list of long names": archive(extra=[(f"data/{number}{'n' * 60_000}", b"") for number in range(20)]),
        "records that overlap": overlapping(),
        "a list of records that is long": GOOD["torch"][:-58] + b"\xff\xff\xff\x7f" + GOOD["torch"][-54:],
        "a record outside of the folder": archive(extra=[("../../evil//data.pkl", b"\0")]),
        "a record that is larger in the list": patched(-1, 20, b"\xff\xff\xff\x7f" * 2),
        "a record that starts elsewhere": patched(0, 42, b"\x40\0\0\0"),
        "a record that is encrypted": patched(0, 8, b"\1\0"),
        "another name in the list": patched(0, 50, b"X"),
        # tensors
        "an expanded tensor": planted(tensor((10**12,), (0,))),
        "a tensor expanded twice": planted(tensor((12, 12), (0, 1))),
        "a tensor before its storage": planted(tensor((12,), (1,), -1)),
        "a tensor behind its storage": planted(tensor((12,), (1,), 1)),
        "a negative stride": planted(tensor((12,), (-1,), 11)),
        "a negative size": planted(tensor((-12,), (1,))),
        "a size that overflows": planted(tensor((2**63, 2**63), (1, 1))),
        "an empty tensor of many rows": planted(tensor((10**15, 0), (1, 1))),
        "many dimensions": planted(tensor((1,) * 70, (1,) * 70)),
        "other numbers of sizes and strides": planted(tensor((12,), (1, 1))),
        "a size that is text": planted(REBUILD + b"(" + reference() + b"K\0" + text(b"ab") * 2 + b"\x89}tR"),
        "strides that are bytes": planted(
            REBUILD + b"(" + reference() + b"K\0)" + text(b"a" * 12_000_000, b"\x8e", "<Q") + b"\x89}tR"
        ),
        "a storage of many types": archive_of_many_types(),
        "a storage that is larger than its record": planted(tensor(storage=reference(10**12))),
        "a storage of another type": planted(tensor(storage=reference(kind=b"ctorch\nDoubleStorage\n"))),
        "a storage of no type": planted(tensor(storage=reference(kind=b"N"))),
        "a storage of a function": planted(tensor(storage=REBUILD)),
        "a storage with a negative size": planted(tensor(storage=reference(-12))),
        "views of one storage": planted(
            *[tensor((1 << 16,), (1,), 0, reference(1 << 16, b"big"))] * 900, **{"data/big": b"\0" * (1 << 18)}
        ),
        "copies of one storage": record(
            pickle=b"\x80\x02](" + reference(1 << 16, b"big") * 900 + b"e.", **{"data/big": b"\0" * (1 << 18)}
        ),
        "integers for weights": planted(tensor(storage=reference(6, kind=b"ctorch\nLongStorage\n"), size=(6,))),
        "a storage that is no number of types": planted(tensor(storage=reference(5, kind=b"ctorch\nDoubleStorage\n"))),
        "a storage of a type without a name": planted(tensor(storage=reference(12, kind=b"ctorch\nUntypedStorage\n"))),
        "many views of nothing": planted(*[tensor((1 << 40, 0), (0, 0))] * 300),
        "an offset that overflows": planted(tensor((0,), (1,), 2**63)),
        # pickles
        "a list in itself": small(b"]q\0h\0a"),
        "a state in itself": small(b"}q\0" + text(b"state_dict") + b"h\0s"),
        "lists that double": small(b"]q\0" + b"".join(b"]q%c(" % (n + 1) + b"h%c" % n * 10 + b"e" for n in range(40))),
        "nested lists": small(b"]" * 60_000 + b"a" * 59_999),
        "nested dictionaries": small((b"}" + text(b"a")) * 40_000 + b"N" + b"s" * 40_000),
        "nested weights": small(b"}" + text(b"ln.weight") + b"N" + b"\x85" * 60_000 + b"s"),
        "a frame without an end": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
        "nested keys": small(NESTED_KEY[2:-1]),
        "nested keys in an archive": record(pickle=NESTED_KEY),
        "nested keys of old": replaced(b"\x80\x02}q\x00.", NESTED_KEY, torch_file({}, legacy=True)),
        "a key that is hashed for ever": small(ENDLESS_KEY[2:-1]),
        "a name that is printed for ever": small(b"N" + b"q\x00h\x00\x86" * 200 + text(b"eval") + b"\x93"),
        "a run of instructions": small(b"}q\x00" * 65_000),
        "a large memory": small(b"Nr\xff\xff\xff\xff"),
        "a long number": small(b"\x8b\xff\xff\xff\x7f1"),
        "long bytes": small(b"\x8e" + struct.pack("<Q", 2**62)),
        "a long text": small(text(b"a" * 3_000_000)),
        "a text that grows": small(text(b"a" * 4_000_000 + "😀".encode()) + b"0N"),
        "a text that is announced": small(b"X\xff\xff\xff\xffa"),
        "duplicates": small(b"]" + b"2" * 1000),
        "an instance": small(b"(ios\nsystem\n"),
        "an extension": small(b"\x82\x01"),
        "a global without an end": small(b"c" + b"a" * 100_000),
        "torch.load": small(b"ctorch\nload\n" + text(marker.encode()) + b"\x85R"),
        "a function of this package": small(b"cghn_pyg.utils.pickle_reader\nread_pickle\n)R"),
        "attributes of a function": small(REBUILD + b"N}" + text(b"__defaults__") + b")s\x86b"),
        "compressed instructions": bomb,
        "compressed instructions of gzip": compressed(b"}", 1 << 26, gzipped=True),
        "compressed twice": zlib.compress(bomb),
        "compressed and plain": GOOD["joblib zlib"] + GOOD["joblib"],
        "plain and compressed": GOOD["joblib"] + GOOD["joblib zlib"],
        "compressed in two parts": gzip.compress(GOOD["joblib"][:999]) + gzip.compress(GOOD["joblib"][999:]),
        "compressed by bz2": bz2.compress(GOOD["joblib"]),
        "compressed by xz": lzma.compress(GOOD["joblib"]),
        "a compressed archive": zlib.compress(GOOD["torch"]),
        "bytes after the end": GOOD["joblib"] + b"more",
        "storages that are loaded again": loaded_again(900),
        "storages in one another": in_one_another(2000),
        # files of before torch 1.6
        "a storage that is announced": replaced(
            struct.pack("<Q", 12) + b"\0" * 0, struct.pack("<Q", 2**60), GOOD["legacy"]
        ),
        "a storage twice": replaced(b"\x80\x02]", b"\x80\x02](X\x01\0\0\0aX\x01\0\0\0ae", torch_file({}, legacy=True)),
        "big numbers first": replaced(b"little_endianq\x02\x88", b"little_endianq\x02\x89", GOOD["legacy"]),
        "tar": tar(),
        # safetensors
        "a header that is announced": header({}, size=2**60),
        "a long header": header(b"{" + b" " * (1 << 21) + b"}"),
        "many tensors": header({f"t{n}": entry(0, 0) for n in range(30_000)}),
        "tensors that overlap": header({name: entry(12, 3) for name in ("ln.weight", "ln.bias")}, b"\0" * 12),
        "tensors with a hole": header({"a": {**entry(0, 3), "data_offsets": [8, 20]}}, b"\0" * 20),
        "a tensor of another type": header({"a": {**entry(12, 3), "dtype": "F64"}}, b"\0" * 12),
        "a tensor of an unknown type": header({"a": {**entry(12, 3), "dtype": "\x1b[2J"}}, b"\0" * 12),
        "a tensor twice": header(b'{"a":%b,"a":%b}' % ((json.dumps(entry(12, 3)).encode(),) * 2), b"\0" * 12),
        "integers by name": weights(**{"norm.weight": torch.ones(12, dtype=torch.int64)}),
        **{f"a configuration with {what}": configured(body) for what, body in CONFIGURATIONS.items()},
        "a shape that overflows": header({"a": entry(0, 2**62, 8)}),
        "no rows of many columns": header({"a": entry(0, 0, 10**15)}),
        "a nested header": header(b"[" * 100_000),
        "a nested configuration": safetensors.torch.save(OURS, {"config": '{"a":' * 50_000}),
        "many classes": weights({"num_classes": 10**15, "encoder": "gcn"}),
        "a large kernel": weights({"max_kernel_size": 10**9, "decoder": "mlp"}),
        "many channels": weights({"max_channels": 10**9, "decoder": "mlp"}),
        "many layers": weights({"layers": 10**9, "encoder": "gcn"}),
        "many fields": weights({f"field{number}": 1 for number in range(20_000)}),
        "many heads": weights({"heads": 10**9, "encoder": "gps"}),
        "layers without tensors": weights({"layers": 40, "encoder": "gps"}),
        "a wide encoder": weights({"encoder": "gcn", "hidden_channels": 40_000},
            **{"node_embedding.weight": torch.zeros(15, 40_000)}),
        "norms of many layers": weights(
            **{f"encoder.layers.{number}.norm1.weight": torch.zeros(1) for number in range(3000)}
        ),
        "not a number": weights(**{"norm.weight": torch.full((12,), torch.nan)}),
        "infinite": weights(**{"norm.weight": torch.full((12,), torch.inf).half()}),
        "a name that clears the screen": weights(**{"\x1b]0;owned\x07\x1b[2J\x9b1mfine": torch.zeros(1)}),
        "a long name": weights(**{"n" * 900_000: torch.zeros(1)}),
        "a name of the archive that clears the screen": dumped(
            torch.save, {**STATE, "\x1b[2J" * 5000: torch.zeros(1)}
        ),
    }  # fmt: skip
    for name, attack in attacks(marker).items():
        files[f"{name} at the top"] = pickle.dumps(attack)
        files[f"{name} in an archive"] = torch_file({**STATE, "extra": attack}, legacy=False)
    files["a key that runs"] = dumped(joblib.dump, {Call(exec, f"open({marker!r}, 'w')"): 1})
    return files

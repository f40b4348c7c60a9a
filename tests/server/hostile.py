"""Bodies that somebody could send as an adapter, each with what is wrong with it, for the scripted engine's model."""

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rollout_server.schema import CONFIG_KEY

Tensors = dict[str, tuple[str, list[int], bytes]]
"""dtype, shape and bytes, by name."""


class Corpus:
    """Args: shapes: (outputs, inputs) of the linear layers of the model that they are sent to."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        self.config: dict[str, Any] = {
            "peft_type": "LORA",
            "r": 2,
            "lora_alpha": 4,
            "target_modules": sorted({module.rpartition(".")[2] for module in shapes}),
        }
        self.tensors: Tensors = {}
        for module, (outputs, inputs) in shapes.items():
            for side, shape in (("A", [2, inputs]), ("B", [outputs, 2])):
                zeros = np.full(shape, 0.01, np.float32).tobytes()
                self.tensors[f"base_model.model.{module}.lora_{side}.weight"] = ("F32", shape, zeros)
        self.first = next(iter(self.tensors))

    def sound(self) -> bytes:
        return self.file(self.tensors)

    def refused(self) -> Iterator[tuple[str, bytes]]:
        """Names of what is wrong, and bodies."""
        yield from self._no_adapters()
        yield from self._headers()
        yield from self._offsets()
        yield from self._tensors()
        yield from self._configurations()

    def _no_adapters(self) -> Iterator[tuple[str, bytes]]:
        yield "nothing", b""
        yield "noise", np.random.default_rng(0).bytes(5000)
        yield "pickle that would run a command", pickle.dumps(Bomb(), protocol=2)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data.pkl", pickle.dumps(Bomb(), protocol=2))
            file.writestr("archive/version", "3")
        yield "torch.save", archive.getvalue()
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("adapter_model.safetensors", bytes(2**26))
        yield "zip bomb", archive.getvalue()
        yield "gzip of an adapter", gzip.compress(self.sound())
        yield "gzip bomb", gzip.compress(bytes(2**26))
        yield "JSON alone", json.dumps(self.config).encode()
        yield "HTML", b"<!doctype html><script>alert(1)</script>" * 100

    def _headers(self) -> Iterator[tuple[str, bytes]]:
        whole = self.sound()
        for length in (2**64 - 1, 2**63, 2**32, 10**8, len(whole) - 7, len(whole)):
            yield f"header of {length} bytes", length.to_bytes(8, "little") + whole[8:]
        yield "header of no bytes", bytes(8) + whole[8:]
        yield "header that fills the body", self.raw(b" " * 10**6)
        yield "deeply nested header", self.raw(b'{"a":' * 20_000 + b"1" + b"}" * 20_000)
        yield "deeply nested list", self.raw(b"[" * 50_000)
        yield "header that is a list", self.raw(b"[]")
        yield "header that is a number of many digits", self.raw(b"9" * 100_000)
        yield "header with NaN", self.raw(b'{"a": NaN}')
        yield "header in UTF-16", self.raw(json.dumps({"__metadata__": {CONFIG_KEY: "{}"}}).encode("utf-16"))
        yield "header with half a surrogate pair", self.raw(b'{"__metadata__": {"adapter_config": "\\ud800"}}')
        yield "header without the end of its string", self.raw(b'{"__metadata__": {"adapter_config": "')
        million = b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(100_000))
        yield "very many tiny tensors", self.raw(b"{" + million + b"}")
        head = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
        data = whole[8 + int.from_bytes(whole[:8], "little") :]
        entry = json.dumps(head[self.first])
        doubled = json.dumps(head)[:-1] + f', "{self.first}": {entry}}}'
        yield "a tensor's name twice", self.raw(doubled.encode(), data)
        doubled = json.dumps(head)[:-1] + f', "__metadata__": {json.dumps({CONFIG_KEY: "{}"})}}}'
        yield "metadata twice", self.raw(doubled.encode(), data)
        config = json.dumps(self.config)
        inner = f'"__metadata__": {{"{CONFIG_KEY}": {json.dumps(config)}, "{CONFIG_KEY}": "{{}}"}}'
        without = json.dumps({name: value for name, value in head.items() if name != "__metadata__"})
        yield "configuration twice", self.raw(f"{{{inner}, {without[1:]}".encode(), data)
        for metadata in ("text", ["list"], 1, None, {CONFIG_KEY: 1}, {CONFIG_KEY: None}, {CONFIG_KEY: ["{}"]}, {}):
            yield f"metadata {metadata}", self.raw(json.dumps(head | {"__metadata__": metadata}).encode(), data)

    def _offsets(self) -> Iterator[tuple[str, bytes]]:
        size = len(self.tensors[self.first][2])
        for offsets in ([0, 0], [0, size + 4], [4, size + 4], [size, 0], [0, 2**63], [2**64 - size, 2**64], [-4, size]):
            yield f"offsets {offsets}", self.changed(data_offsets=offsets)
        for offsets in ([0], [], [0, 1, 2], "0", None, [0.0, float(size)]):
            yield f"offsets {offsets}", self.changed(data_offsets=offsets)
        for shape in ([2**40, 2**40], [2**32, 2**32], [0, 4], [0], [], [1] * 1000, [-2, -4], [True, True], "2,4", [8]):
            yield f"shape {str(shape)[:30]}", self.changed(shape=shape)
        for dtype in ("F64", "I8", "BOOL", "F8_E4M3", "U64", "object", "<f4", "", None, 5):
            yield f"dtype {dtype}", self.changed(dtype=dtype)
        yield "bytes behind the end", self.sound() + b"\x00" * 4
        yield "bytes missing at the end", self.sound()[:-4]

    def _tensors(self) -> Iterator[tuple[str, bytes]]:
        for name in (
            "../../../../etc/passwd",
            "/etc/passwd",
            "base_model.model.../../etc/passwd.lora_A.weight",
            "base_model.model..lora_A.weight",
            "base_model.model.lora_A.weight",
            "base_model.model.mоdel.layers.0.lora_A.weight",
            "\u202ebase_model.model.x.lora_A.weight",
            "__class__",
            "a\x00b",
            "base_model.model." + "a" * 50_000 + ".lora_A.weight",
            "base_model.model." + "a." * 20_000 + "lora_A.weight",
            "😀" * 1000,
            "",
        ):
            yield f"tensor {name[:40]!r}", self.file(self.tensors | {name: self.tensors[self.first]})
        dtype, shape, data = self.tensors[self.first]
        for value in (np.nan, np.inf, -np.inf, 1e30, 3e38):
            values = np.frombuffer(data, np.float32).copy()
            values[-1] = value
            yield f"value {value}", self.file(self.tensors | {self.first: (dtype, shape, values.tobytes())})
        large = {name: (d, s, np.full(s, 1e5, np.float32).tobytes()) for name, (d, s, _) in self.tensors.items()}
        yield "matrices whose product is beyond all measure", self.file(large)
        yield "a tensor of another shape", self.file(self.tensors | {self.first: (dtype, shape[::-1], data)})
        yield "no tensors", self.file({})

    def _configurations(self) -> Iterator[tuple[str, bytes]]:
        bombs = ["(a+)+$", "(.*.*)*x", "(.|.)*" * 10 + "!", "(" * 5000 + ")" * 5000, "[", "a{1000}{1000}{1000}", ".*"]
        for targets in (*bombs, "all-linear", 1, None, {}, [1], [["q_proj"]], [], ["nothing"], [None]):
            yield f"target_modules {str(targets)[:30]}", self.file(self.tensors, target_modules=targets)
        for rank in (0, -1, 1e9, 2**70, "2", True, None, 2.5, [2]):
            yield f"r {rank}", self.file(self.tensors, r=rank)
        for alpha in (0, -1, "4", None, True, [4], 1e300, float("inf"), float("nan")):
            yield f"lora_alpha {alpha}", self.file(self.tensors, lora_alpha=alpha)
        for field in ({"use_rslora": "yes"}, {"use_rslora": 1}, {"peft_type": "IA3"}, {"peft_type": "../x"}):
            yield f"configuration {field}", self.file(self.tensors, **field)
        for field in ({"use_dora": True}, {"bias": "all"}, {"bias": {"a": 1}}, {"modules_to_save": ["lm_head"]}):
            yield f"configuration {field}", self.file(self.tensors, **field)
        for text in ("", "{", "[]", "null", '"text"', "[" * 50_000, "{}", "\x00", '{"r": ' + "9" * 10_000 + "}"):
            yield f"configuration {text[:20]!r}", self.file(self.tensors, text=text)

    def changed(self, **entry: Any) -> bytes:
        """A sound file, but for what its header says of the first tensor."""
        whole = self.sound()
        length = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + length])
        header[self.first] |= entry
        return self.raw(json.dumps(header).encode(), whole[8 + length :])

    def file(self, tensors: Tensors, text: str | None = None, **config: Any) -> bytes:
        """A file of these tensors, whose configuration is changed, or this text."""
        header: dict[str, Any] = {
            "__metadata__": {CONFIG_KEY: json.dumps(self.config | config) if text is None else text}
        }
        data = b""
        for name, (dtype, shape, part) in tensors.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
            data += part
        return self.raw(json.dumps(header).encode(), data)

    def raw(self, header: bytes, data: bytes = b"") -> bytes:
        return len(header).to_bytes(8, "little") + header + data


class Bomb:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return (os._exit, (66,))

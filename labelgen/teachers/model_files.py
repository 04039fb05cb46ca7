"""A teacher's files: where they are, what they say of the model, and the hashes that tell one model from another."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labelstore.checksums import hash_file
from labelstore.sealed_json import canonical_json

__all__ = [
    "adapter_rank",
    "find_adapter_dir",
    "find_model_dir",
    "hash_adapter",
    "hash_config",
    "hash_weights",
    "read_generation_config",
]

# Keys of config.json that say who wrote the file, not what the model computes.
_CONFIG_NOISE = {"_name_or_path", "transformers_version"}
_ADAPTER_NOISE = {"base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version", "task_type"}
_WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")  # in the order in which loaders prefer them


def find_model_dir(teacher: str) -> Path:
    """Return the folder of a teacher: the folder itself, or a hub model's snapshot, downloaded where it is missing.

    Raises:
        ValueError: there is no such folder or hub model, or it is no model.
    """
    return _find_dir(
        teacher, option="--teacher", config="config.json", wanted="so it is not a model; give a folder with one"
    )


def find_adapter_dir(adapter: str) -> Path:
    """Return the folder of a LoRA adapter, as `find_model_dir`.

    Raises:
        ValueError: there is no such folder or hub name, or it is no LoRA adapter.
    """
    path = _find_dir(adapter, option="--adapter", config="adapter_config.json", wanted="so it is not an adapter")
    kind = _read_adapter_config(path).get("peft_type")
    if kind != "LORA":
        raise ValueError(f"--adapter {adapter}: is of the type {kind!r}, vLLM runs LORA")
    return path


def _find_dir(name: str, *, option: str, config: str, wanted: str) -> Path:
    path = Path(name).expanduser()
    if not path.exists():
        path = _download(name, option=option)
    if not (path / config).is_file():
        raise ValueError(f"{option} {name}: has no {config}, {wanted}")
    if not _weight_files(path):
        raise ValueError(f"{option} {name}: has no weights ({', '.join(_WEIGHT_PATTERNS)})")
    return path


def adapter_rank(adapter_dir: Path) -> int:
    """Return the highest rank of an adapter's matrices."""
    config = _read_adapter_config(adapter_dir)
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])


def hash_adapter(adapter_dir: Path) -> str:
    """Return one hash over what an adapter computes: its weights, and what its config says of how they are used."""
    telling = {key: value for key, value in _read_adapter_config(adapter_dir).items() if key not in _ADAPTER_NOISE}
    return hashlib.sha256(canonical_json([hash_weights(adapter_dir), telling])).hexdigest()


def hash_weights(model_dir: Path) -> str:
    """Return one hash over the content of all weight files.

    A file's hash is cached by its size and time in $XDG_CACHE_HOME/labelgen (or ~/.cache/labelgen): reading 800 GB
    takes minutes. Of several processes of a machine one hashes, the others wait and find it.
    """
    paths = _weight_files(model_dir)
    with _hashing_alone():
        cache = _HashCache()
        with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:  # hashing releases the GIL
            hashes = list(pool.map(cache.hash, paths))
        cache.save()
    return hashlib.sha256(canonical_json(hashes)).hexdigest()


def hash_config(model_dir: Path) -> str:
    """Return the hash of what config.json says of the model."""
    config = json.loads((model_dir / "config.json").read_bytes())
    telling = {key: value for key, value in config.items() if key not in _CONFIG_NOISE}
    # As canonical_json, but configs may hold Infinity (Mamba2's time_step_limit).
    spelled = json.dumps(telling, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(spelled.encode()).hexdigest()


def read_generation_config(model_dir: Path) -> dict[str, Any]:
    """Return the model's generation_config.json; empty if it has none."""
    try:
        content: dict[str, Any] = json.loads((model_dir / "generation_config.json").read_bytes())
    except FileNotFoundError:
        return {}
    return content


def _read_adapter_config(adapter_dir: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((adapter_dir / "adapter_config.json").read_bytes())
    return config


def _download(name: str, *, option: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"{option} {name}: no such folder; give a folder or a hub name like owner/name")
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise ValueError(
            f"{option} {name}: no such folder, and without huggingface_hub it cannot be fetched; "
            f"pip install 'labelgen[vllm]'"
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, ignore_patterns=["original/*", "*.onnx", "*.msgpack"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{option} {name}: no such folder, and the hub gave no such model ({reason})") from error


def _weight_files(model_dir: Path) -> list[Path]:
    for pattern in _WEIGHT_PATTERNS:
        if paths := sorted(model_dir.glob(pattern)):
            return paths
    return []


@contextlib.contextmanager
def _hashing_alone() -> Iterator[None]:
    """Hold this machine's lock on the hash cache; where there can be none, the same is hashed twice at worst."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            _cache_dir().mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((_cache_dir() / f"hashing-{socket.gethostname()}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the process ends, however that is
        yield


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelgen"


class _HashCache:
    """File hashes by path, size and time; a cache that does not read is as good as none."""

    def __init__(self) -> None:
        self._path = _cache_dir() / "weight-hashes.json"
        self._hashes: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            self._hashes = dict(json.loads(self._path.read_bytes()))

    def hash(self, path: Path) -> str:
        stat = path.stat()
        key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        if key not in self._hashes:
            self._hashes[key] = hash_file(path)
        return self._hashes[key]

    def save(self) -> None:
        with contextlib.suppress(OSError):  # a read-only home costs time, nothing else
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch_path = self._path.with_suffix(f".{os.getpid()}")
            scratch_path.write_text(json.dumps(self._hashes))
            scratch_path.replace(self._path)

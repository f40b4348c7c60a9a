"""Brings what schemathesis makes up nearer to what a server can do, where the schema allows the one as the other: then
its cases reach what lies behind the checks, and what is answered there is compared with the schema, too.

SCHEMATHESIS_HOOKS names this file; FUZZ_MODEL is the id of the base model, FUZZ_ADAPTER a file that it takes.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import GenerationMode

from rollout_server.schema import HASH_HEADER

MODEL = os.environ["FUZZ_MODEL"]
ADAPTER = Path(os.environ["FUZZ_ADAPTER"]).read_bytes()
VERSIONS = 4
TOKENS = 48
LENGTH = 6


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    valid = case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE
    if isinstance(case.body, dict):
        case.body = {name: nearer(name, value) for name, value in case.body.items()}
    parameters = case.path_parameters or {}
    if "version" in parameters and valid:
        case.path_parameters = {"policy": "fuzz", "version": int(parameters["version"]) % VERSIONS}
        if case.method == "PUT":
            case.body = ADAPTER
            case.headers[HASH_HEADER] = hashlib.sha256(ADAPTER).hexdigest()
    elif "model" in parameters and valid:
        case.path_parameters = {"model": MODEL}


def nearer(name: str, value: Any) -> Any:
    """A value of the same validity, for a field of this name."""
    match name, value:
        case "model", str():
            return MODEL
        case "policy", str() if value.isalnum() and value.isascii() and len(value) <= 100:
            return "fuzz"
        case "policy_version", int() if 0 <= value < 2**53 and value is not True:
            return value % VERSIONS
        case "max_tokens" | "max_completion_tokens", int() if value > LENGTH:
            return LENGTH
        case "n", int() if value > 2:
            return 2 if value <= 128 else value
        case "temperature", int() | float() if 0 <= value < 0.01:
            return 0.01
        case "seed", int() if 0 <= value < 2**63 and value is not True:
            return None
        case "prompt", "":
            return "a"
        case "sampling", dict():
            return {key: nearer(key, inner) for key, inner in value.items()}
        case "prompts" | "prompt" | "stop_token_ids", list():
            return tokens(value)
    return value


def tokens(value: Any) -> Any:
    if isinstance(value, list):
        return [nonempty(tokens(item)) for item in value[:LENGTH]]
    is_token = isinstance(value, int) and not isinstance(value, bool)
    return value % TOKENS if is_token else value


def nonempty(value: Any) -> Any:
    """A prompt has something in it."""
    return value or {str: "a", list: [1]}.get(type(value), value)

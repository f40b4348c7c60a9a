"""python -m rollout_server: serve a base model and the LoRA adapters of its policies.

Beyond this machine (--host 0.0.0.0) it serves nobody who does not send the key that TALLY_API_KEY holds, or the file
that TALLY_API_KEY_FILE names. Exit codes: 0 stopped by SIGTERM or SIGINT, 2 wrong arguments or the port is taken, 3
the model could not be loaded, 4 a policy has diverged, 5 the engine died. The wire is described in
rollout_server/schema.py.
"""

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import uvloop

if TYPE_CHECKING:
    from rollout_server.engines import Engine

_STOP_SECONDS = 3  # that running requests get after SIGTERM
_BEAT_SECONDS = 1
_NOT_LOADED, _DIVERGED, _DIED = 3, 4, 5


def main() -> NoReturn:
    args = _parser().parse_args()
    if args.api_key:
        _hide(args.api_key)
    args.served_name = args.served_name or _served_name(args.model)
    listener = _listener(args)  # first of all: a taken port is known at once, not after the model is loaded
    key = _key(args, listener)
    engine = _engine(args)
    with tempfile.TemporaryDirectory(prefix="rollout-server-") as folder:
        code = uvloop.run(_serve(engine, listener, Path(folder), key, args))
    sys.stderr.flush()
    os._exit(code)  # ends an engine that is still loading, too


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rollout_server",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", help="folder or hub name of the base model (needed by --engine vllm)")
    parser.add_argument("--served-name", help="id of the base for OpenAI's clients; the folder or hub name when absent")
    parser.add_argument("--engine", choices=["vllm", "scripted"], default="vllm", help="scripted needs no model")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is every network")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    parser.add_argument("--fd", type=int, help="inherited listening socket, instead of --host and --port")
    parser.add_argument(
        "--api-key", metavar="KEY", help="better TALLY_API_KEY: others on this machine may see KEY until it is hidden"
    )
    parser.add_argument("--guests", type=int, default=64, help="requests of OpenAI's clients at a time; 0 lets none in")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument("--dtype", default="auto", help="of the model; auto is float32 on CPU, bfloat16 on CUDA")
    parser.add_argument("--max-lora-rank", type=int, default=16, help="highest rank of an adapter, 512 at the most")
    parser.add_argument("--max-loras", type=int, default=4, help="adapters mixed in one batch: four a policy do")
    parser.add_argument("--keep", type=int, default=8, help="versions of each policy that stay served")
    parser.add_argument("--max-model-len", type=int, help="tokens of prompt and completion; as many as fit when absent")
    parser.add_argument(
        "--max-num-seqs",
        type=int,
        help="completions sampled at the same time; when absent 256 on CPU, and what vLLM decides on CUDA",
    )
    parser.add_argument("--gpu-memory", type=float, default=0.9, help="fraction of the GPU's memory to use")
    parser.add_argument("--cpu-cache", type=float, default=0.5, help="GiB of KV cache on CPU")
    parser.add_argument(
        "--no-engine-metrics",
        dest="engine_metrics",
        action="store_false",
        help="leave vLLM's own numbers out of /metrics: on CPU they cost a small model 7%% of its tokens a second",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    parser.add_argument("--pulse", type=Path, metavar="FILE", help="touch this file each second while the server works")
    return parser


def _served_name(model: str | None) -> str | None:
    """A folder's own name, for its place is nobody's business; a hub name as it is."""
    return Path(model).resolve().name if model and Path(model).is_dir() else model


def _fail(message: str, fix: str, code: int = 2) -> NoReturn:
    print(f"error: {message}\n  fix: {fix}", file=sys.stderr, flush=True)
    sys.exit(code)


def _hide(key: str) -> None:
    """A key of the command line leaves the process's title, which everybody on this machine can read."""
    from setproctitle import setproctitle

    sys.argv = [argument.replace(key, "…") for argument in sys.argv]
    setproctitle(shlex.join(["python", "-m", "rollout_server", *sys.argv[1:]]))


def _listener(args: argparse.Namespace) -> socket.socket:
    if args.fd is not None:
        fix = "pass on a listening TCP socket (pass_fds)"
        try:
            listener = socket.socket(fileno=args.fd)
        except OSError as error:
            _fail(f"--fd {args.fd} is no socket: {error.strerror}", fix)
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            _fail(f"--fd {args.fd} is a socket of {listener.family.name}", fix)
        listener.set_inheritable(False)  # the engine's process has no part in it
        return listener
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        return socket.create_server((args.host, args.port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        _fail(f"cannot listen on {args.host}:{args.port}: {reason}", "choose another one with --port or --host")


def _key(args: argparse.Namespace, listener: socket.socket) -> str | None:
    """The key that clients have to send; None where only this machine reaches the listener and none is set."""
    from rollout_server.access import AccessError, api_key, check_exposed, checked

    try:
        key = checked(args.api_key, "--api-key") if args.api_key else api_key()
        check_exposed(listener.getsockname()[0], key)
    except AccessError as error:
        _fail(str(error), error.fix)
    return key


def _engine(args: argparse.Namespace) -> "Engine":
    if args.engine == "scripted":
        from rollout_server.engines.scripted import ScriptedEngine

        return ScriptedEngine()
    if args.model is None:
        _fail("--model is missing", "name the folder or the hub name of the base model")
    from rollout_server.engines.vllm import VllmEngine
    from rollout_server.engines.vllm_load import LORA_RANKS, Options

    if not 1 <= args.max_lora_rank <= LORA_RANKS[-1]:
        _fail(f"--max-lora-rank is {args.max_lora_rank}", f"take 1 to {LORA_RANKS[-1]}, the highest that vLLM serves")
    if args.max_loras < 1:
        _fail(f"--max-loras is {args.max_loras}", "take 1 or more")
    return VllmEngine(
        Options(
            model=args.model,
            served_name=args.served_name,
            trust_remote_code=args.trust_remote_code,
            dtype=args.dtype,
            max_lora_rank=args.max_lora_rank,
            max_loras=args.max_loras,
            keep=args.keep,
            max_model_len=args.max_model_len,
            max_num_seqs=args.max_num_seqs,
            gpu_memory=args.gpu_memory,
            cpu_cache=args.cpu_cache,
            engine_metrics=args.engine_metrics,
            seed=args.seed,
        )
    )


async def _serve(
    engine: "Engine", listener: socket.socket, folder: Path, key: str | None, args: argparse.Namespace
) -> int:
    """Answer while the engine loads and runs, until a signal or the engine's end. Returns the exit code."""
    import uvicorn

    from rollout_server import connections
    from rollout_server.access import OWN_NAMES
    from rollout_server.app import create_app
    from rollout_server.errors import DivergedError, EngineError, KilledError

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # uvicorn would raise the signal again when it has stopped, before we have cleaned up

    hosts = None if key else OWN_NAMES | {args.host.lower(), listener.getsockname()[0]}
    app = create_app(
        engine, folder, keep=args.keep, served_name=args.served_name, key=key, hosts=hosts, guests=args.guests
    )
    connections.prepare(listener)
    server = Server(connections.config(app, stop_s=_STOP_SECONDS))

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    print(f"rollout server: {_address(listener)} loads {engine.model}", file=sys.stderr, flush=True)
    loaded = asyncio.Event()
    running = asyncio.create_task(_run(engine, loaded))
    running.add_done_callback(lambda _: stop())
    beating = asyncio.create_task(_beat(args.pulse, engine)) if args.pulse else None
    await server.serve(sockets=[listener])
    engine.close()
    await asyncio.wait({running}, timeout=_STOP_SECONDS)
    error = running.exception() if running.done() else None
    if isinstance(error, EngineError):
        print(f"error: {error}", file=sys.stderr, flush=True)
    elif error:
        raise error
    if beating:
        beating.cancel()
    if error and not loaded.is_set() and not isinstance(error, KilledError):
        return _NOT_LOADED
    if isinstance(error, DivergedError):
        return _DIVERGED
    return _DIED if error else 0


async def _run(engine: "Engine", loaded: asyncio.Event) -> None:
    await engine.start()
    loaded.set()
    print(f"rollout server: ready, {engine.model}", file=sys.stderr, flush=True)
    await engine.join()


async def _beat(file: Path, engine: "Engine") -> None:
    """Signs of life, while both loops turn: this one, and the engine's."""
    from rollout_server.engines import stands_still

    while True:
        if not stands_still(engine):
            file.touch()
        await asyncio.sleep(_BEAT_SECONDS)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


if __name__ == "__main__":
    main()

"""Start vLLM, a fast server that writes and judges answers, in an environment of its own.

    python -m caft_utils serve Qwen/Qwen2.5-Coder-32B-Instruct --gpus 4 --adapter caft=FOLDER

vLLM pins its own versions of torch and transformers, so it cannot share this package's environment:

    python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm

The two talk over HTTP, in the form of the OpenAI API: `Endpoint("http://127.0.0.1:8000/v1", "caft")`. An
adapter is the folder of a fine-tuning run, `tuned.caft_run["folder"]`. It is served under its name beside the
base model, so one server writes the answers of every condition (backends/served.py), and another model on
another port can judge them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from caft_utils.arguments import whole
from caft_utils.models import preset
from caft_utils.text_files import read_json

ENVIRONMENT = ".venv-vllm"
HOST, PORT = "127.0.0.1", 8000
TOP_LOGPROBS = 20  # as many as the judge asks for; also vLLM's own limit
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the limits on LoRA ranks that vLLM accepts


def serve_command(
    model: str,
    adapters: Mapping[str, str | Path] | None = None,
    *,
    environment: str | Path = ENVIRONMENT,
    port: int = PORT,
    gpus: int = 1,
    max_length: int | None = None,
) -> list[str]:
    """Return the command that serves a model to this machine only, with the dtype and revision of its preset.

    Args:
        model: a hub id or a folder.
        adapters: {name on the server: folder of a fine-tuning run}.
        environment: virtual environment that vLLM is installed in.
        gpus: number of GPUs that share the weights.
        max_length: longest conversation in tokens. None: the model's own limit, which takes more memory.

    Raises:
        FileNotFoundError: the environment has no vLLM, or a folder has no adapter.
        ValueError: an adapter has a rank that vLLM does not serve, or a number is out of range.
    """
    program = Path(environment) / "bin" / "vllm"
    if not program.is_file():
        raise FileNotFoundError(
            f"{program} is missing. vLLM needs an environment of its own and a GPU: python3 -m venv "
            f"{environment} && {environment}/bin/pip install vllm"
        )
    settings = preset(model)
    # By default the server would sample as generation_config.json of the model says.
    options = {"host": HOST, "port": str(whole("port", port, 1)), "generation-config": "vllm"}
    options |= {"dtype": settings.dtype, "max-logprobs": str(TOP_LOGPROBS)}
    options |= {"tensor-parallel-size": str(whole("gpus", gpus, 1))}
    if settings.revision is not None:
        options["revision"] = settings.revision
    if max_length is not None:
        options["max-model-len"] = str(whole("max_length", max_length, 1))
    command = [str(program), "serve", model]
    for name, value in options.items():
        command += [f"--{name}", value]
    if adapters:
        rank = max(_rank(Path(folder)) for folder in adapters.values())
        limit = next((limit for limit in RANKS if rank <= limit), None)
        if limit is None:
            raise ValueError(f"vLLM serves adapters of a rank up to {RANKS[-1]}, and one here has {rank}")
        command += ["--enable-lora", "--max-lora-rank", str(limit), "--lora-modules"]
        command += [f"{name}={Path(folder).absolute()}" for name, folder in adapters.items()]
    return command


def _rank(folder: Path) -> int:
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; give the folder of a run of finetune with method='lora', "
            'tuned.caft_run["folder"]'
        )
    return whole(f"r in {file}", read_json(file)["r"], 1)


def main(arguments: list[str] | None = None) -> int:
    """Replace this process by the server. Return the exit status if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m caft_utils serve", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", help="a hub id or a folder")
    parser.add_argument("--adapter", nargs="*", default=[], metavar="NAME=FOLDER", help="served under NAME")
    parser.add_argument("--environment", default=ENVIRONMENT, help=f"default {ENVIRONMENT}")
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--max-length", type=int, help="longest conversation in tokens")
    parser.add_argument("--print", action="store_true", help="print the command and do not run it")
    options = parser.parse_args(arguments)
    try:
        if odd := [text for text in options.adapter if not all(text.partition("="))]:
            raise ValueError(f"--adapter must be NAME=FOLDER, got {odd[0]!r}")
        command = serve_command(
            options.model,
            dict(text.split("=", 1) for text in options.adapter),
            environment=options.environment,
            port=options.port,
            gpus=options.gpus,
            max_length=options.max_length,
        )
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(" ".join(command), flush=True)
    if not options.print:
        os.execv(command[0], command)
    return 0

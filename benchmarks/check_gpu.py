"""`make check-gpu`: what a GPU node must show before a long job. Run by hand there; no GPU is used elsewhere.

The parity proof in bfloat16, with a float32 head, and in float32, under vLLM's default (V2) runner; versions and a
table on the terminal, and a result file in benchmarks/results/. `--rehearse` runs the same steps on a CPU, with few
prompts and without a result, to see that this script itself works.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from prove_parity import Comparison, prove, report, write_results

PRECISIONS = [("bfloat16", None), ("bfloat16", "float32"), ("float32", None)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, briefly, without a result")
    arguments = parser.parse_args()
    if not arguments.rehearse:
        gpus = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
        if gpus.returncode:
            sys.exit("nvidia-smi finds no GPU here: GPU behaviour is unknown until this runs on a GPU node")
        print(gpus.stdout.strip())
    comparisons: list[Comparison] = []
    for name in ["smollm2"] if arguments.rehearse else ["smollm2", "gemma"]:
        for dtype, head_dtype in PRECISIONS:
            print(f"labelling with {name}: {dtype}, head {head_dtype or dtype}", flush=True)
            device = "cpu" if arguments.rehearse else "cuda"
            num_prompts = 4 if arguments.rehearse else 24
            comparisons += prove(name, dtype=dtype, head_dtype=head_dtype, device=device, num_prompts=num_prompts)
    print_versions()
    is_right = report(comparisons)
    runners = {one.recorded["vllm_runner"] for one in comparisons}
    if not arguments.rehearse:
        if runners != {"v2"}:
            print(f"✗ the runner is {', '.join(runners)}, not v2: V2's behaviour is still unknown")
        write_results(comparisons, name="gpu", command="make check-gpu")
    sys.exit(not (is_right and (arguments.rehearse or runners == {"v2"})))


def print_versions() -> None:
    import torch
    import transformers
    import vllm

    print(f"vllm {vllm.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")


if __name__ == "__main__":
    main()

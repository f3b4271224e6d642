"""Prepares the model, the text and the prompts unless that is done already, then runs the comparison.

usage: demo.py RUNNER [options]; `./dev demo` calls it.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import model
import novel
import tokens
from common import Failure, main_guard

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "demo"
EXPECTED_LOGITS = ROOT / "examples" / "llama" / "data" / "smollm2-135m-instruct.logits.safetensors"
PROMPTS = [
    "Who was Jane Austen?",
    "Explain in two sentences why the sky is blue.",
    "Write a recipe for tomato soup.",
]


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="./dev demo", add_help=False, allow_abbrev=False,
                                     description="Runs a language model over every cache format and compares them.")
    parser.add_argument("--model", type=Path, metavar="FOLDER",
                        help="a Llama model of your own: config.json, one model.safetensors, tokenizer.json")
    parser.add_argument("--text", type=Path, metavar="FILE", help="a UTF-8 text of your own")
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="a prompt of your own; may be repeated")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "demo.json", metavar="FILE",
                        help="where to write the results (default: out/demo.json)")
    parser.add_argument("-h", "--help", action="store_true", help="show this, then the options of the runner")
    options, rest = parser.parse_known_args(arguments)
    if options.help:
        parser.print_help()
    return options, rest


def main() -> None:
    runner = sys.argv[1]
    options, rest = parse(sys.argv[2:])
    if options.help:
        print("\nand these of the runner:\n", flush=True)
        sys.exit(subprocess.call([runner, "--help"]))

    command = [runner, *rest]
    folder, model_name = options.model, str(options.model)
    if folder is None:
        folder, model_name = CACHE / "model", model.CREDIT
        model.prepare_model(sys.executable, CACHE / "downloads", folder)
        command += ["--check", str(EXPECTED_LOGITS)]
    text, text_name = options.text, str(options.text)
    if text is None:
        text, text_name = CACHE / "text" / "mansfield-park.txt", novel.CREDIT
        novel.prepare_novel(CACHE / "downloads", text)

    tokenizer = tokens.load_tokenizer(folder)
    files = {name: CACHE / "tokens" / f"{name}.safetensors" for name in ("text-tokens", "prompt-tokens", "vocabulary")}
    tokens.write_text(tokenizer, text, files["text-tokens"])
    tokens.write_prompts(tokenizer, folder, options.prompt or PROMPTS, files["prompt-tokens"])
    tokens.write_vocabulary(tokenizer, files["vocabulary"])
    for name, path in files.items():
        command += [f"--{name}", str(path)]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    command += ["--model", str(folder), "--model-name", model_name, "--text-name", text_name, "--json", str(options.json)]
    try:
        os.execv(runner, command)
    except OSError as error:
        raise Failure(f"cannot run {runner} ({error}); run ./dev demo, which builds it") from None


if __name__ == "__main__":
    main_guard(main)

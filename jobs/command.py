"""How every command starts and ends: parse, call one function, one line where something is wrong."""

import json
import os
import re
import shlex
import sys
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import date
from itertools import pairwise, takewhile
from typing import Any, NoReturn

import psutil
import yaml
from jsonargparse import ArgumentParser, auto_cli, get_loader, set_loader, set_parsing_settings
from jsonargparse.typing import register_type

from ctnet_ray import storage
from ctnet_ray.credentials import bare_uri, without_credentials
from ctnet_ray.errors import CtnetError, LostRayError, nearest

_load_yaml = get_loader("yaml")


def _load(text: str) -> Any:
    return storage.parse_yaml(text, _load_yaml)


set_loader("yaml", _load, (yaml.YAMLError,))
set_parsing_settings(docstring_parse_attribute_docstrings=True)
register_type(date, str, lambda value: value if isinstance(value, date) else date.fromisoformat(value))


class _Parser(ArgumentParser):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A misspelt option is an error, not the option that begins like it.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the options; what jsonargparse stumbles over in them, or in a file, is one line."""
        try:
            return super().parse_args(*args, **kwargs)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self.error(f"can't read the options or their configuration file: {error}")

    def instantiate(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """Make the sections, which must be mappings."""
        for name in self.groups or ():
            if isinstance(value := cfg.get(name, {}), str | int | float | list):
                self.error(f"{name}: a mapping is needed, not {value!r}")
        return super().instantiate(cfg, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say in one line what is wrong with the options."""
        del ex
        text = _choice_fault(message) or " ".join(message.split())
        print(f"error: {without_credentials(text)} (see --help)", file=sys.stderr)
        sys.exit(2)


def _choice_fault(message: str) -> str | None:
    """Say which values a choice has, and the nearest; jsonargparse says them once a reading that it tried."""
    pattern = r'key "(?P<key>[^"]+)".*?Literal\[(?P<choices>[^\]]+)\].*(?:Given|Got) value: (?P<given>[^\n]+)'
    fault = re.search(pattern, message, re.DOTALL)
    if not fault:
        return None
    choices = re.findall(r"'([^']+)'", fault["choices"])
    given = fault["given"].strip()
    return f"{fault['key']} can't be {given}{nearest(given, choices)}: it is one of {', '.join(choices)}"


def _with_values(options: Sequence[str], flags: Collection[str]) -> list[str]:
    """Return a command line whose flags all say true or false."""
    switches = {f"--{flag.replace('_', mark)}": f"--{flag}" for flag in flags for mark in "_-"}
    return [
        switches.get(option, option) + "=true" * (option in switches and following not in ("true", "false"))
        for option, following in pairwise([*options, ""])
    ]


def _with_lists(options: Sequence[str], several: Collection[str]) -> list[str]:
    """Return a command line on which the words behind an option that takes several are one list."""
    arguments, left = [], deque(options)
    while left:
        arguments.append(left.popleft())
        if arguments[-1].removeprefix("--") in several and not (left and left[0].startswith("[")):
            words = [*takewhile(lambda word: not word.startswith("--"), left)]
            left = deque([*left][len(words) :])
            arguments[-1] += f"={json.dumps(words)}"
    return arguments


def run(
    components: Callable[..., Any] | dict[str, Callable[..., Any]],
    description: str,
    args: Sequence[str] | None = None,
    positional: bool = False,
    flags: Collection[str] = (),
    several: Collection[str] = (),
) -> NoReturn:
    """Parse the command line, call the function that it names, and exit.

    Args:
        components: A function, or one for each subcommand; parameters and their docstrings become options.
        description: First lines of `--help`.
        args: Command line; None: the one that the program was started with.
        positional: Whether parameters without a default are given by place, not by name.
        flags: Parameters that mean true when they stand alone: `--json`, and `--dry-run` for `dry_run`.
        several: Parameters that are lists, and take all words up to the next option: `--models A B C`.

    Exits with status 0, with 1 and one line on standard error for a `CtnetError`, with 2 for a wrong option,
    with 130 when interrupted. CTNET_TRACEBACK=1 shows the traceback of a `CtnetError` too.
    """
    options = _with_values(_with_lists(sys.argv[1:] if args is None else args, several), flags)
    try:
        auto_cli(
            components,  # type: ignore[arg-type]
            parser_class=_Parser,
            description=description,
            args=options,
            as_positional=positional,
            prog=f"python -m {_module()}",
        )
    except CtnetError as error:
        if os.environ.get("CTNET_TRACEBACK"):
            raise
        print(f"error: {without_credentials(str(error))}", file=sys.stderr)
        if isinstance(error, LostRayError):
            _end_at_once()
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last whole day", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _end_at_once() -> NoReturn:
    """End this process and all that it started: Ray's own end waits for what is gone, until Ray aborts it."""
    sys.stdout.flush()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    os._exit(1)


def typed(module: str) -> str:
    """Return what was typed to run a module, for reports: without user and password of a URI."""
    return shlex.join(["python", "-m", module, *(_shown(option) for option in sys.argv[1:])])


def _shown(option: str) -> str:
    """Return an option without credentials; what has spaces in it is one URI."""
    name, mark, value = option.partition("=")
    return f"{name}{mark}{bare_uri(value)}" if mark and "://" not in name else bare_uri(option)


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else "jobs"

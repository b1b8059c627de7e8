"""Entry of the command `tuneforge`: runs it and turns every way it can end into one clear line and an exit code.

0 done; 1 an error, with what to do about it; 2 wrong usage; 130 stopped with Ctrl-C; 141 the pipe was closed.
"""

import io
import os
import sys


def main() -> None:
    """Runs the command line and exits."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows another one instead
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:  # before or after a command; the commands say more
        code = _say("stopped", 130)
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def _run() -> int:
    import click

    from tuneforge.cli.app import cli
    from tuneforge.cli.stopping import Stopped

    if "_TUNEFORGE_COMPLETE" in os.environ:  # the shell asks for completions
        cli.main(prog_name="tuneforge")
    try:
        # Not cli.main: it answers a broken pipe and Ctrl-C in its own way.
        with cli.make_context("tuneforge", sys.argv[1:]) as context:
            cli.invoke(context)
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return _say("stopped", 130)
    except Stopped as stop:
        return _say(str(stop), 130)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:  # the last place where an error can become a sentence
        if os.environ.get("TUNEFORGE_DEBUG"):
            raise
        from tuneforge.cli.failures import describe

        return _say(describe(error), 1)
    return 0


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


if __name__ == "__main__":
    main()

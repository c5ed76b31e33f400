"""Measurements that take turns: each contestant in a process that stands still meanwhile."""

import contextlib
import multiprocessing
import os
import signal
import statistics


@contextlib.contextmanager
def process(make, *arguments):
    """A process of its own for one contestant.

    Args:
        make: A function of a module. In the process it is called once, with `arguments`, at the
            first turn, and returns `{name: function without arguments}`, empty if it cannot
            take part.
        *arguments: What can be pickled.

    Returns:
        A context, whose value is a function: from a name to what that function returned in the
        process, or `None` if there is none of that name. Between its turns the process is
        stopped, so that threads which wait or work ahead do not cost the others anything.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_serve, args=(there, make, arguments))
    child.start()
    there.close()

    def turn(name):
        os.kill(child.pid, signal.SIGCONT)
        here.send(name)
        result = here.recv()
        os.kill(child.pid, signal.SIGSTOP)
        return result

    try:
        yield turn
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)
        here.close()
        child.join()


def _serve(connection, make, arguments):
    functions = None
    with contextlib.suppress(EOFError):  # the other side has closed
        while True:
            name = connection.recv()
            functions = make(*arguments) if functions is None else functions
            connection.send(functions[name]() if name in functions else None)


def ratios(rates, timms_rates):
    """`{"ratio": median, "ratios": (lowest, highest)}` of rates measured in turns, or `None`s."""
    if None in timms_rates:
        return {"ratio": None, "ratios": None}
    found = [ours / timms for ours, timms in zip(rates, timms_rates, strict=True)]
    return {
        "ratio": round(statistics.median(found), 2),
        "ratios": (round(min(found), 2), round(max(found), 2)),
    }


def import_timm():
    """timm, or `None` where it cannot be imported.

    torchvision may have been built for another torch. Its compiled operators are then missing,
    and timm's models and transforms use none of them.
    """
    try:
        import torch
    except ImportError:
        return None
    register_fake = torch.library.register_fake

    def register_if_there(*args, **kwargs):
        def register(function):
            try:
                return register_fake(*args, **kwargs)(function)
            except RuntimeError:
                return function

        return register

    torch.library.register_fake = register_if_there
    try:
        import timm
        import timm.data
    except ImportError:
        return None
    finally:
        torch.library.register_fake = register_fake
    return timm

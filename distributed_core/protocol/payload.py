"""The user's objects to opaque frames and back. Workers and clients call it; the scheduler never does.

Out-of-band buffers of pickle protocol 5 stay where they are (PEP 574), so that a large array is not copied.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import cloudpickle

from distributed_core.errors import NotSerializable
from distributed_core.protocol.codec import OUT_OF_BAND_BYTES, Buffer
from distributed_core.protocol.modules import travels_by_value

Frames = bytes | list[Any]
"""A pickle; or, where it is large or has out-of-band buffers, a list of it and of them."""

_SMALL_ITEMS_MAX = 16
_SMALL_DEPTH_MAX = 3
#: Byte strings from this size on travel out of band, so that no copy of them is made for it.
_LARGE_BYTES = 1 << 20
_PLAIN = (int, float, bool, type(None), complex)


class _Context(threading.local):
    """What the (un)pickling that runs in this thread has to do with references; a stack, since calls nest."""

    def __init__(self) -> None:
        self.collecting: list[dict[int, tuple[int, Any]]] = []
        self.values: list[list[Any]] = []


_context = _Context()


# --- values ---------------------------------------------------------------------------------------


def dumps(value: Any) -> Frames:
    """Return `value` as frames: its pickle alone, or in a list with its out-of-band buffers.

    Raises
    ------
    NotSerializable
        It cannot be pickled.
    """
    if type(value) in _PLAIN:
        return pickle.dumps(value, 5)
    if type(value) is bytes and len(value) >= _LARGE_BYTES:
        value = _LargeBytes(value)
    buffers: list[pickle.PickleBuffer] = []
    try:
        try:
            body = pickle.dumps(value, 5, buffer_callback=buffers.append)
            if travels_by_value(body):
                # What the caller's script defines cannot be imported elsewhere: it travels by value.
                buffers.clear()
                body = cloudpickle.dumps(value, 5, buffer_callback=buffers.append)
        except NotSerializable:
            raise
        except Exception:
            buffers.clear()
            body = cloudpickle.dumps(value, 5, buffer_callback=buffers.append)
    except NotSerializable:
        raise
    except Exception as error:
        text = f"{type(value).__name__} cannot be sent to another process ({type(error).__name__}: {error})"
        raise NotSerializable(text) from error
    if len(body) < OUT_OF_BAND_BYTES:
        return [body, *map(_buffer, buffers)] if buffers else body
    return [Buffer(body), *map(_buffer, buffers)]


class _LargeBytes:
    """Pickles a byte string as a buffer beside the pickle."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __reduce__(self) -> tuple[type[bytes], tuple[pickle.PickleBuffer]]:
        return bytes, (pickle.PickleBuffer(self._value),)


def _buffer(part: pickle.PickleBuffer) -> Buffer:
    try:
        return Buffer(part.raw())
    except BufferError:
        return Buffer(memoryview(part).tobytes())


def loads(frames: Frames) -> Any:
    """Return the value that `frames` hold."""
    if isinstance(frames, bytes):
        return pickle.loads(frames)
    first = frames[0]
    body = first.view if isinstance(first, Buffer) else first
    if len(frames) == 1:
        return pickle.loads(body)
    return pickle.loads(body, buffers=[_memory(part) for part in frames[1:]])


def _memory(part: Any) -> Any:
    """Return memory that an array may write to: what came as a frame of its own is ours, small parts are copied."""
    view = part.view
    return view if isinstance(view, memoryview) and not view.readonly else bytearray(view)


# --- functions ------------------------------------------------------------------------------------


def dumps_function(function: Callable[..., Any]) -> bytes:
    """Return a function as bytes: by reference where it is installed, else by value.

    A module that is not installed (a script's neighbour, a test) is taken for one that workers do not have.

    Raises
    ------
    NotSerializable
        It, or what it closes over, cannot be pickled.
    """
    frames = dumps(function)
    parts = [frames] if isinstance(frames, bytes) else frames
    return pickle.dumps([bytes(part.view) if isinstance(part, Buffer) else part for part in parts], 5)


def loads_function(body: bytes) -> Callable[..., Any]:
    """Return the function in `body`."""
    first, *rest = pickle.loads(body)
    function: Callable[..., Any] = pickle.loads(first, buffers=rest)
    return function


# --- calls, whose arguments may refer to results that are elsewhere -------------------------------


def dumps_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Frames, list[Any]]:
    """Return the arguments of a call as frames, and the objects among them that are references.

    A reference is an object whose `__reduce__` returns `reference(self)`, at whatever depth. Each is listed once.

    Raises
    ------
    NotSerializable
        An argument cannot be pickled.
    """
    if not kwargs and all(type(each) in _PLAIN for each in args):
        return pickle.dumps((args, kwargs), 5), []
    found: dict[int, tuple[int, Any]] = {}
    _context.collecting.append(found)
    try:
        frames = dumps((args, kwargs))
    except NotSerializable as error:
        names = ", ".join(type(each).__name__ for each in (*args, *kwargs.values()))
        raise NotSerializable(f"an argument (of {names:.200}) cannot be sent: {error}") from error
    finally:
        _context.collecting.pop()
    return frames, [each for _, each in found.values()]


def collecting() -> bool:
    """Tell whether this thread is dumping a call, so that references mean something."""
    return bool(_context.collecting)


def reference(target: Any, identity: Any = None) -> tuple[Callable[[int], Any], tuple[int]]:
    """Return what `__reduce__` of a reference returns.

    Parameters
    ----------
    identity
        What the target stands for: several targets of one identity are one reference. By default the target itself.

    Raises
    ------
    NotSerializable
        Nobody is dumping a call: a reference means nothing elsewhere.
    """
    if not _context.collecting:
        name = type(target).__name__
        raise NotSerializable(f"a {name} can be an argument of a task, but not pickled otherwise; gather it first")
    found = _context.collecting[-1]
    own = id(target if identity is None else identity)
    known = found.get(own)
    if known is None:
        known = found[own] = (len(found), target)
    return _resolve, (known[0],)


def _resolve(index: int) -> Any:
    return _context.values[-1][index]


def loads_call(frames: Frames, values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return (args, kwargs) with `values` in place of the references."""
    if not values:
        args, kwargs = loads(frames)
        return args, kwargs
    _context.values.append(values)
    try:
        args, kwargs = loads(frames)
        return args, kwargs
    finally:
        _context.values.pop()


# --- exceptions -----------------------------------------------------------------------------------


class RemoteException(Exception):
    """Stands for an exception that could not be sent; the text names its type and what it said."""


def dumps_exception(error: BaseException, skip_files: tuple[str, ...] = ()) -> Frames:
    """Return an exception with its traceback as frames; never raises.

    Parameters
    ----------
    skip_files
        Leading frames of the traceback that lie in these files are left out: they are the engine's, not the user's.
    """
    from tblib import pickling_support

    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename in skip_files:
        traceback = traceback.tb_next
    try:
        error.__traceback__ = traceback
        pickling_support.install(error)
        frames = dumps((error, traceback))
        # Some pickle and cannot be opened again, for an __init__ with other parameters: find out here.
        loads(_copied(frames))
        return frames
    except BaseException:
        return _stand_in(error, traceback)


def _stand_in(error: BaseException, traceback: TracebackType | None) -> Frames:
    try:
        text = f"{type(error).__module__}.{type(error).__qualname__}: {error}"
    except BaseException:
        text = f"{type(error).__name__}, whose text cannot be had"
    stand_in = RemoteException(text)
    try:
        return dumps((stand_in, traceback))
    except BaseException:
        return dumps((stand_in, None))


def _copied(frames: Frames) -> Frames:
    if isinstance(frames, bytes):
        return frames
    return [Buffer(bytes(part.view)) if isinstance(part, Buffer) else part for part in frames]


def loads_exception(frames: Frames) -> BaseException:
    """Return the exception, with the traceback of the process that raised it; never raises."""
    from tblib import pickling_support

    pickling_support.install()
    try:
        error, traceback = loads(frames)
        if isinstance(error, BaseException):
            return error.with_traceback(traceback)
        return RemoteException(repr(error))
    except Exception as problem:
        return RemoteException(f"a task's exception could not be opened here ({type(problem).__name__}: {problem})")


# --- sizes ----------------------------------------------------------------------------------------


def sizeof(value: Any) -> int:
    """Return about how many bytes `value` takes, cheaply; never raises. Long collections are sampled."""
    kind = type(value)
    if kind in _PLAIN or kind is str or kind is bytes:
        return sys.getsizeof(value)
    try:
        nbytes = getattr(value, "nbytes", None)
        if isinstance(nbytes, int):
            return nbytes + 64
        blocks = getattr(getattr(value, "_mgr", None), "blocks", None)
        if blocks is not None:
            # A frame of pandas: a hundred times quicker than to ask it, which matters for frames of a few rows.
            return int(sum([block.values.nbytes for block in blocks]) + value.index.nbytes) + 64
        usage = getattr(value, "memory_usage", None)
        if usage is not None:
            used = usage(deep=False)
            return int(used.sum() if hasattr(used, "sum") else used) + 64
        if kind in (list, tuple, set, frozenset, dict):
            return _sizeof_collection(value)
        return sys.getsizeof(value)
    except Exception:
        return 64


def _sizeof_collection(value: Any, sample: int = 10) -> int:
    items: list[Any] = []
    for each in value.items() if isinstance(value, dict) else value:
        items.append(each)
        if len(items) == sample:
            break
    if not items:
        return sys.getsizeof(value)
    parts = sum(sizeof(each) for each in items)
    return sys.getsizeof(value) + parts * len(value) // len(items)


def small_plain(value: Any, bytes_max: int = 1024, depth: int = _SMALL_DEPTH_MAX) -> bool:
    """Tell, without pickling, that `value` is surely small: plain scalars, short text, shallow collections of them."""
    kind = type(value)
    if kind in _PLAIN:
        return kind is not int or value.bit_length() <= 8 * bytes_max
    if kind is str or kind is bytes:
        return len(value) <= bytes_max
    if depth and kind in (list, tuple) and len(value) <= _SMALL_ITEMS_MAX:
        return all(small_plain(each, bytes_max // max(1, len(value)), depth - 1) for each in value)
    if depth and kind is dict and len(value) <= _SMALL_ITEMS_MAX:
        share = bytes_max // max(1, 2 * len(value))
        return all(small_plain(key, share, 0) and small_plain(each, share, depth - 1) for key, each in value.items())
    return False

"""A graph of dask on its way to the scheduler. Importing it imports dask.

Only what the wanted keys need leaves, in the order that `dask.order` finds best, in chunks. What the client holds
already is not sent again. Tasks that are no result are released as soon as all their users are submitted: from then on
these alone keep them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from dask._task_spec import Alias, DataNode, Task, TaskRef
from dask.order import order
from dask.utils import key_split

from distributed_core import messages
from distributed_core.client import cells as states
from distributed_core.client.cells import Cell
from distributed_core.client.compiling import Compiler
from distributed_core.client.future import Future
from distributed_core.client.names import name_of
from distributed_core.errors import NotSerializable, UsageError
from distributed_core.machines.client.machine import CHUNK_TASKS
from distributed_core.protocol import payload as payloads
from distributed_core.protocol.functions import function_digest
from distributed_core.protocol.programs import GraphCall, GraphProgram

#: Literals up to this size travel with each task that uses them; larger ones are tasks of their own.
INLINE_BYTES = 1024
Options = Callable[[Any, Any], tuple[dict[str, Any] | None, int]]


class GraphInput:
    """Stands for the result of a task, in what is pickled for the tasks that use it."""

    __slots__ = ("cell", "number")

    def __init__(self, number: int, cell: Cell | None = None) -> None:
        self.number = number
        self.cell = cell

    def __reduce__(self) -> Any:
        return payloads.reference(self, self.cell)


class GraphSubmission:
    """One graph, sent once.

    Parameters
    ----------
    client
        Whose tasks they are.
    graph
        Nodes of dask by key.
    futures
        The futures that the graph mentions, by their names.
    options
        Returns the options and the priority of a task, from its key and its node.
    """

    def __init__(self, client: Any, graph: dict[Any, Any], futures: dict[str, Future], options: Options) -> None:
        self._client = client
        self._session = client._session
        self._graph = graph
        self._futures = futures
        self._options = options
        self._compiler = Compiler(self._input_of)
        self._aliases: dict[Any, Any] = {}
        self._inputs: dict[Any, Any] = {}
        self._held: list[Cell] = []
        self._adopted: list[Cell] = []
        self._posted: dict[int, None] = {}
        self._bodies: dict[Any, tuple[bytes, str]] = {}

    def send(self, wanted: Iterable[Any]) -> dict[Any, Cell]:
        """Submit what `wanted` needs; return the cells of these keys, each counted once for the caller.

        Raises
        ------
        NotSerializable
            A task cannot be sent; nothing of the graph stays at the scheduler.
        """
        session = self._session
        with session.cells.lock:
            # A name of an earlier graph that is not held any more may mean something else in this one.
            session.settle_releases()
        ends = {key: self._resolved(key) for key in wanted}
        kept = dict.fromkeys(ends.values())
        cells: dict[Any, Cell] = {}
        try:
            needs = self._needs(kept)
            self._check_inputs()
            self._compiler.survey(self._graph[key] for key in needs)
            first = self._number(needs)
            ordered = self._ordered(needs, first)
            users = Counter(each for inputs in needs.values() for each in inputs if each in needs)
            for start in range(0, len(ordered), CHUNK_TASKS):
                self._send_chunk(ordered[start : start + CHUNK_TASKS], kept, cells, needs, users)
            found: dict[Any, Cell] = {}
            with session.cells.lock:
                for key, end in ends.items():
                    cell = found[key] = cells[end] if end in cells else self._inputs[end].cell
                    cell.refs += 1
            return found
        finally:
            self._let_go(cells)

    def _let_go(self, cells: dict[Any, Cell]) -> None:
        """Release what was held for the sake of the submission alone, or where it broke off."""
        session = self._session
        for cell in (*self._held, *cells.values()):
            session.release(cell)
        if self._posted:
            with session.cells.lock:
                session.post(messages.Release(list(self._posted)))

    # --- what is needed ---------------------------------------------------------------------------

    def _resolved(self, key: Any) -> Any:
        """Return the key that `key` is an alias of, in the end."""
        graph = self._graph
        node: Any = graph.get(key)
        if type(node) is not Alias:
            return key
        known = self._aliases.get(key)
        if known is not None:
            return known
        trail = {key: None}
        target = key
        while type(node) is Alias:
            target = node.target
            if target in trail:
                raise UsageError(f"the key {key!r:.80} of this graph is an alias of itself")
            trail[target] = None
            node = graph.get(target)
        for each in trail:
            self._aliases[each] = target
        return target

    def _needs(self, wanted: dict[Any, None]) -> dict[Any, tuple[Any, ...]]:
        """Return the keys to submit, each with those that it uses; find what is there already."""
        graph = self._graph
        needs: dict[Any, tuple[Any, ...]] = {}
        stack = list(wanted)
        while stack:
            key = stack.pop()
            if key in needs or key in self._inputs:
                continue
            node = graph.get(key)
            if node is None:
                self._inputs[key] = self._outside(key)
                continue
            cell = self._known(name_of(key))
            if cell is not None:
                self._inputs[key] = GraphInput(cell.number, cell)
                continue
            kind = type(node)
            if kind is DataNode and key not in wanted and payloads.small_plain(node.value, INLINE_BYTES):
                self._inputs[key] = node.value
                continue
            _refuse_foreign_shuffle(key, node)
            used = node.dependencies
            if used:
                inputs = tuple([self._resolved(each) for each in used])
                needs[key] = inputs
                stack.extend(inputs)
            else:
                needs[key] = ()
        return needs

    def _known(self, name: str) -> Cell | None:
        """Return what this client has under that name, held until the submission is over."""
        cells = self._session.cells
        if name not in cells.by_key:
            return None
        with cells.lock:
            cell: Cell | None = cells.by_key.get(name)
            if cell is None or cell.status not in (states.PENDING, states.FINISHED):
                return None
            cell.refs += 1
        self._held.append(cell)
        return cell

    def _outside(self, key: Any) -> GraphInput:
        """Return the input for a key that is not in the graph: a future's, of this client or of another."""
        client, cells = self._client, self._session.cells
        future = self._futures.get(key) if type(key) is str else None
        name = name_of(key)
        with cells.lock:
            cell: Cell | None = None
            if future is not None and future.client is client:
                cell = future._cell
            elif type(key) is str:
                # Where dask took a future for its key, that is a name already.
                cell = cells.by_key.get(key) or cells.of_own_name(key, client.id) or cells.by_key.get(name)
                name = key
            if cell is not None:
                cell.refs += 1
        if cell is None:
            cell = client._adopt(name)
            self._adopted.append(cell)
        self._held.append(cell)
        return GraphInput(cell.number, cell)

    def _check_inputs(self) -> None:
        """Raise where a task from outside the graph has no result and gets none, as far as that is known here."""
        if self._adopted and not self._client.asynchronous:
            # The answer comes after the scheduler has looked for these names.
            self._client.sync(self._session.call("holders", {"numbers": []}))
        for cell in self._held:
            if cell.status not in (states.PENDING, states.FINISHED):
                raise cell.exception()

    def _input_of(self, key: Any) -> Any:
        found = self._inputs.get(key, self)
        if found is self:
            found = self._inputs[self._resolved(key)]
        return found

    # --- in order ---------------------------------------------------------------------------------

    def _number(self, needs: dict[Any, Any]) -> int:
        cells = self._session.cells
        with cells.lock:
            first: int = cells.reserve(len(needs))
        return first

    def _ordered(self, needs: dict[Any, tuple[Any, ...]], first: int) -> list[Any]:
        """Return the keys such that each comes after those that it uses, with their inputs numbered."""
        # Aliases are resolved, and what is there already is gone: dask orders what is sent.
        graph = self._graph
        sent = {}
        for key, used in needs.items():
            node = graph[key]
            inner = {each for each in used if each in needs}
            sent[key] = node if inner == node.dependencies else Task(key, _nothing, *map(TaskRef, inner))
        try:
            ranks = order(sent)
        except RuntimeError as error:
            raise UsageError(f"this graph has a circle ({error}); no task of it could ever start") from None
        done: dict[Any, None] = {}
        for key in sorted(needs, key=ranks.__getitem__):
            # It is so already; an order of dask's to come might be another.
            stack = [key]
            while stack:
                each = stack.pop()
                missing = [used for used in needs[each] if used in needs and used not in done]
                if missing:
                    stack += (each, *missing)
                else:
                    done[each] = None
        ordered = list(done)
        for number, key in enumerate(ordered, first):
            self._inputs[key] = GraphInput(number)
        return ordered

    # --- out --------------------------------------------------------------------------------------

    def _send_chunk(
        self,
        chunk: list[Any],
        kept: dict[Any, None],
        cells: dict[Any, Cell],
        needs: dict[Any, tuple[Any, ...]],
        users: Counter[Any],
    ) -> None:
        works = []
        groups: Counter[Any] = Counter()
        for key in chunk:
            node = self._graph[key]
            work = self._compiler.constant(node.value) if type(node) is DataNode else self._compiler.work(node)
            group: Any = (key_split(key), work.plain, tuple(map(id, work.functions)))
            groups[group] += 1
            works.append((key, node, work, group))
        functions: list[Any] = []
        tasks = []
        for key, node, work, group in works:
            args = work.args
            shared = work.shared and (groups[group] > 1 or group in self._bodies)
            if not shared:
                if work.plain:
                    args = (((0, args, work.kwargs or None, (), ()),), 0, None)
                group = (group[0], False, None)
                args = (*args, work.functions)
            digest, name = self._body(group, work.functions if shared else None, functions)
            try:
                frames, references = payloads.dumps_call(args, work.kwargs if shared else {})
            except NotSerializable as error:
                raise NotSerializable(f"the task {key!r:.80} of this graph cannot be sent: {error}") from error
            inputs = [self._number_of(each) for each in references]
            options, priority = self._options(key, node)
            number = self._inputs[key].number
            tasks.append([number, name_of(key), digest, frames, inputs, priority, options])
            if key in kept:
                cell = cells[key] = Cell(number, name, name_of(key))
                cell.refs = 1
        self._post(functions, tasks, cells, self._done_with(chunk, kept, needs, users))

    def _body(self, group: Any, functions: tuple[Any, ...] | None, new: list[Any]) -> tuple[bytes, str]:
        """Return the digest and the name of the function of a group of tasks; put it into `new` the first time."""
        known = self._bodies.get(group)
        if known is None:
            name, plain, _ = group
            made = GraphCall(name, functions[0]) if plain and functions else GraphProgram(name, functions)
            try:
                body = payloads.dumps_function(made)
            except NotSerializable as error:
                text = f"a function of the tasks {name} of this graph cannot be sent: {error}"
                raise NotSerializable(text) from error
            known = self._bodies[group] = (function_digest(body), name)
            new.append([known[0], name, body])
        return known

    def _number_of(self, reference: Any) -> int:
        if type(reference) is GraphInput:
            return reference.number
        if reference.client is not self._client:
            raise UsageError("a future of another client cannot be in a graph; gather it first")
        number: int = reference._cell.number
        return number

    def _done_with(
        self, chunk: list[Any], kept: dict[Any, None], needs: dict[Any, tuple[Any, ...]], users: Counter[Any]
    ) -> list[int]:
        """Return the numbers of the tasks whose last user is in `chunk`, and that are no results."""
        done = []
        for key in chunk:
            for each in needs[key]:
                if each in users:
                    users[each] -= 1
                    if not users[each] and each not in kept:
                        done.append(self._inputs[each].number)
        return done

    def _post(self, functions: list[Any], tasks: list[Any], cells: dict[Any, Cell], done: list[int]) -> None:
        session = self._session
        session.wait_for_room()
        with session.cells.lock:
            for cell in cells.values():
                if cell.number not in session.cells.by_number:
                    session.cells.put(cell)
            session.post_tasks([each for each in functions if session.needs_function(each[0])], tasks)
            for task in tasks:
                if task[0] not in session.cells.by_number:
                    self._posted[task[0]] = None
            for number in done:
                del self._posted[number]
            if done:
                session.post(messages.Release(done))


def _nothing() -> None:
    """Stand for any function."""


def _refuse_foreign_shuffle(key: Any, node: Any) -> None:
    """Raise where a graph shuffles over a local disk, or through another engine's workers."""
    head = key[0] if type(key) is tuple and key else key
    if type(head) is str:
        if head.startswith(("zpartd-", "partd-")):
            raise UsageError(
                "this graph shuffles over one machine's disk, which other machines do not see; ask for shuffle='tasks' "
                "(shuffle_method='tasks' for dataframes), or build it inside `with client.as_current()`"
            )
        if head.startswith("shuffle-barrier-") and type(node) is not Task:
            raise UsageError(
                "this graph shuffles through the workers of dask.distributed (p2p); set dataframe.shuffle.method or "
                "array.rechunk.method to 'tasks', or build it inside `with client.as_current()`"
            )

# SPDX-License-Identifier: MIT
"""Runs a script against a backend: when each event happens, and whether that is what it says.

Events are taken in order. Where the interpreter acts itself (inbound packets, system calls,
commands, code), it waits for the time. Where a packet is expected, it waits for the packet, and
checks its time. A relative time counts from the moment at which the event before was over. Between
two inbound packets it counts from the time that the first had in the script.
"""

import errno
import os
from dataclasses import replace
from time import monotonic
from typing import Final

from skbus.packetdrill import ss, wire
from skbus.packetdrill.backend import Backend, Reply
from skbus.packetdrill.calls import NOT_APPLICABLE, Calls, Started
from skbus.packetdrill.code import (
    MEMINFO_SIZE,
    TCP_INFO_SIZE,
    CodeError,
    CodeRunner,
    sk_meminfo,
    tcp_info,
)
from skbus.packetdrill.commands import obey
from skbus.packetdrill.compare import continues, differences
from skbus.packetdrill.config import Config, with_options
from skbus.packetdrill.failure import Mismatch
from skbus.packetdrill.flow import Flow, FlowError, FlowState, pieces
from skbus.packetdrill.report import Happened, Result, Status, seconds
from skbus.packetdrill.script import (
    Code,
    Command,
    Event,
    IcmpPacket,
    Packet,
    Script,
    ScriptError,
    SysCall,
    TcpPacket,
    TimeKind,
    UdpPacket,
    Unsupported,
)
from skbus.packetdrill.shell import Asked, run_command
from skbus.packetdrill.sockets import Sockets
from skbus.packetdrill.symbols import SYMBOLS
from skbus.packetdrill.wire import IPPROTO_TCP, Seen

SEC: Final = 1_000_000_000
PATIENCE: Final = 2 * SEC
"""How long after its time a packet is waited for, so that the report can say that it was late."""
ANY_PATIENCE: Final = 3600 * SEC
BLOCKED: Final = 1 * SEC
"""How long a blocking call may hold up the next one."""
STUCK: Final = 600 * SEC


def run_script(script: Script, backend: Backend, config: Config) -> Result:
    """Run one script; the backend is closed afterwards."""
    began = monotonic()
    run: Interpreter | None = None
    result = Result(script.path, Status.PASSED)
    try:
        config = with_options(config, script.options, script.path)
        check_applicable(script)
        if config.dry_run:
            return result
        run = Interpreter(script, backend, config)
        run.run()
    except Mismatch as e:
        result.status, result.reason, result.details = Status.FAILED, e.reason, e.details
    except Unsupported as e:
        result.status, result.reason = Status.NOT_APPLICABLE, str(e)
    except (FlowError, ScriptError) as e:
        result.status, result.reason = Status.ERROR, getattr(e, "text", str(e))
    finally:
        backend.close()
    if run is not None:
        result.history, result.warnings = run.history, run.warnings
        result.duration = run.ended
        if run.event is not None and result.status is not Status.PASSED:
            result.line, result.event = run.event.line, run.event.text
    result.seconds = monotonic() - began
    return result


def check_applicable(script: Script) -> None:
    """Unsupported where a script makes a call that no stack of this kind has."""
    for event in script.events:
        if isinstance(event.action, SysCall) and event.action.name in NOT_APPLICABLE:
            raise Unsupported(NOT_APPLICABLE[event.action.name])


class Interpreter:
    """One run of one script."""

    def __init__(self, script: Script, backend: Backend, config: Config) -> None:
        self.script = script
        self.backend = backend
        addresses = backend.start(config.addresses, config.mtu)
        if config.fixed and addresses[:4] != config.addresses[:4]:
            raise Unsupported("addresses of its own")
        self.config = config = replace(config, addresses=addresses)
        self.history: list[Happened] = []
        self.warnings: list[str] = []
        self.event: Event | None = None
        self.ended = 0
        self.sockets = Sockets(config.addresses, backend.first_port)
        self.calls = Calls(backend, self.sockets, config)
        self.code = CodeRunner(script.path)
        self._blocking: tuple[Event, Started, int] | None = None
        self._last: tuple[Event, int] | None = None
        """the event before, and its time"""
        self._began = 0
        """when the event before began; where calls take time, a packet may be sent meanwhile"""
        self._unsent: list[tuple[int, Seen]] = []
        """outbound packets that were taken from the backend and belong to no event yet"""

    def run(self) -> None:
        """Run it. Mismatch, Unsupported, ScriptError, FlowError."""
        backend = self.backend
        try:
            for program in self.config.init_scripts:
                self._command(Command(program), check=True)
            if self.script.init is not None:
                self._command(self.script.init, check=True)
            backend.begin()
            for event in self.script.events:
                self.event = event
                self._step(event)
            self._finish_blocking(at_end=True)
            if self.config.strict_end:
                self._nothing_left()
            self.event = None
        except BaseException:
            self.ended = backend.now()
            self._cleanup()
            raise
        self.ended = backend.now()
        if wrong := self._cleanup():
            raise wrong

    def _cleanup(self) -> ScriptError | Unsupported | None:
        """The last command, even where the script has failed. The report is then not about an error
        of this command."""
        if self.script.cleanup is None:
            return None
        try:
            self._command(self.script.cleanup, check=False)
        except (ScriptError, Unsupported) as e:
            return e
        return None

    # ---- time --------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        action = event.action
        outbound = isinstance(action, Packet) and not action.inbound
        if outbound:
            self.backend.settle()
        now = self.backend.now()
        time = event.time
        base = 0
        if time.kind is not TimeKind.ABSOLUTE:
            base = now
            last = self._last
            if last is not None and _anchored(last[0]) and _anchored(event):
                base = last[1]
        elif self._last is None and time.start:
            raise ScriptError("the first event has to be at time 0", self.script.path, event.line)
        start = base + time.start
        if isinstance(action, Packet) and outbound:
            self._outbound(event, action, base)
        else:
            self._wait_for(event, start)
            self._began = self.backend.now()
            self._act(event, action, base)
        self._last = (event, start)

    def _wait_for(self, event: Event, start: int) -> None:
        backend = self.backend
        backend.wait(start)
        self._check_blocking()
        if self._last is None:
            return
        late = backend.now() - start
        if late > self.config.within(start - self._last[1]):
            raise Mismatch(
                f"it is {seconds(backend.now())} already: {_what(event)} was due at"
                f" {seconds(start)}"
            )

    def _check_time(self, event: Event, base: int, at: int, what: str) -> None:
        """Was an outbound packet in time?"""
        time = event.time
        if time.kind is TimeKind.ANY:
            return
        start = base + time.start
        end = base + time.end if time.end is not None else start
        tolerance = self.config.within(start - self._last[1] if self._last else 0)
        early = start if time.kind is TimeKind.ABSOLUTE else min(base, self._began) + time.start
        if early - tolerance <= at <= end + tolerance:
            self._began = at
            return
        when = seconds(start) + (f" to {seconds(end)}" if end != start else "")
        raise Mismatch(
            f"{what} came {'early' if at < start else 'late'}: expected at {when}, seen at"
            f" {seconds(at)} (tolerance {seconds(tolerance)})"
        )

    # ---- what we do --------------------------------------------------------------------

    def _act(self, event: Event, action: object, base: int) -> None:
        if isinstance(action, TcpPacket | UdpPacket | IcmpPacket):
            self._inbound(event, action)
        elif isinstance(action, SysCall):
            self._syscall(event, action, base)
        elif isinstance(action, Command):
            self._command(action, check=True)
        elif isinstance(action, Code):
            self._code(event, action)

    def _note(self, line: int, text: str, at: int | None = None) -> None:
        self.history.append(Happened(self.backend.now() if at is None else at, line, text))

    def _inbound(self, event: Event, packet: Packet) -> None:
        flow = self.sockets.for_script(packet)
        if isinstance(packet, TcpPacket):
            scaled = self.config.ts_ecr_scaled
            data = [flow.segment_in(p, scaled) for p in pieces(packet, self.config.mss)]
            if len(data) > 1:
                data = [*map(wire.dont_fragment, data)]
        elif isinstance(packet, UdpPacket):
            data = [flow.datagram_in(packet)]
        else:
            data = [flow.icmp_in(packet)]
        self._note(event.line, wire.show_script(packet))
        self.backend.inject(*data)

    def _command(self, command: Command, check: bool) -> None:
        backend = self.backend
        asked = Asked(backend.counters, backend.sysctls, self._proc, self._ss)
        outcome = run_command(command.text, os.path.dirname(self.script.path), asked)
        if outcome.refused:
            raise Unsupported(outcome.refused[0])
        for name, value in outcome.sysctls:
            try:
                backend.sysctl(name, value)
            except ValueError as e:
                raise ScriptError(str(e), self.script.path) from None
        for program, *args in outcome.others:
            obey(backend, program, args)
        for path in outcome.written:
            raise Unsupported(f"a file that has no meaning here: {path}")
        if check and outcome.status:
            first = outcome.output.strip().split("\n")[0] or "no output"
            raise Mismatch(f"the command ended with status {outcome.status}: {first}")

    def _proc(self, name: str) -> str | None:
        """A file of /proc/net; those of IPv6 are empty."""
        return "" if name.endswith("6") else self.backend.proc(name)

    def _ss(self) -> str:
        """What `ss` is to print."""
        infos = []
        for flow in self.sockets.flows:
            if flow.fd < 0:
                continue
            info, congestion = b"", b""
            if flow.protocol == IPPROTO_TCP:
                info = self._bytes(flow.fd, "SOL_TCP", "TCP_INFO", TCP_INFO_SIZE)
                congestion = self._bytes(flow.fd, "SOL_TCP", "TCP_CONGESTION", 16)
            memory = self._bytes(flow.fd, "SOL_SOCKET", "SO_MEMINFO", MEMINFO_SIZE)
            local, remote = flow.local, flow.remote
            if flow.state is FlowState.LISTENING:
                local, remote = flow.bound or local, (bytes(4), 0)
            infos.append(ss.Info(local, remote, info, congestion, memory))
        return ss.snapshot(self.backend.proc, infos)

    def _bytes(self, fd: int, level: str, name: str, size: int) -> bytes:
        """A socket option that may not be there: b"" then."""
        reply = self._option(fd, level, name, size)
        return b"" if reply.errno else bytes(reply.result)

    def _code(self, event: Event, code: Code) -> None:
        flow = self.sockets.under_test
        if flow is None or flow.fd < 0:
            raise ScriptError("there is no socket to ask for its tcp_info", "", event.line)
        values: dict[str, int] = {}
        if flow.protocol == IPPROTO_TCP:
            values = tcp_info(self._asked(flow.fd, "SOL_TCP", "TCP_INFO", TCP_INFO_SIZE))
        if "SK_MEMINFO_" in code.text:
            values |= sk_meminfo(self._asked(flow.fd, "SOL_SOCKET", "SO_MEMINFO", MEMINFO_SIZE))
        self._note(event.line, "%{ " + " ".join(code.text.split())[:90] + " }%")
        try:
            for line in self.code.run(code.text, event.line, values).splitlines():
                self._note(event.line, f"printed: {line}")
        except CodeError as e:
            raise Mismatch(f"code: {e}") from e

    def _asked(self, fd: int, level: str, name: str, size: int) -> bytes:
        reply = self._option(fd, level, name, size)
        if reply.errno:
            raise Mismatch(f"getsockopt({name}) gives {errno.errorcode.get(reply.errno)}")
        return bytes(reply.result)

    def _option(self, fd: int, level: str, name: str, size: int) -> Reply:
        pending = self.backend.call("getsockopt", fd, SYMBOLS[level], SYMBOLS[name], size)
        self.backend.wait(self.backend.now() + BLOCKED, pending)
        return pending.reply if pending.done else Reply(errno.ETIMEDOUT)

    # ---- system calls ------------------------------------------------------------------

    def _syscall(self, event: Event, call: SysCall, base: int) -> None:
        self._finish_blocking(at_end=False, next_blocks=call.end is not None)
        started = self.calls.start(call)
        if call.end is not None:
            self._blocking = (event, started, base + call.end)
            self.backend.wait(self.backend.now(), started.pending)
            self._check_blocking()
            return
        self.backend.wait(self.backend.now() + STUCK, started.pending)
        if not started.done:
            raise Mismatch(f"{call.name} blocks")
        self._returned(event, started)

    def _returned(self, event: Event, started: Started) -> None:
        text, wrong = started.verdict()
        self._note(event.line, text, started.finished)
        if wrong and "syscall" in self.config.non_fatal:
            self.warnings.append(f"line {event.line}: {wrong[0]}")
        elif wrong:
            self.event = event
            raise Mismatch(f"{started.call.name}: {wrong[0]}", wrong[1:])

    def _check_blocking(self) -> None:
        """If the blocking call has returned: rightly, and in time?"""
        if self._blocking is None or not self._blocking[1].done:
            return
        event, started, end = self._blocking
        self._blocking = None
        self._returned(event, started)
        begin = self._last[1] if self._last else 0
        tolerance = self.config.within(end - begin)
        if abs(started.finished - end) > tolerance:
            self.event = event
            raise Mismatch(
                f"{started.call.name} returned at {seconds(started.finished)}, expected"
                f" {seconds(end)} (tolerance {seconds(tolerance)})"
            )

    def _finish_blocking(self, *, at_end: bool, next_blocks: bool = False) -> None:
        """Wait for the blocking call before the next one."""
        if self._blocking is None:
            return
        event, started, _ = self._blocking
        self.backend.wait(self.backend.now() + BLOCKED, started.pending)
        self._check_blocking()
        if self._blocking is not None and (at_end or next_blocks):
            self.event = event
            raise Mismatch(f"{started.call.name} has not returned")

    # ---- what the stack does -----------------------------------------------------------

    def _outbound(self, event: Event, packet: Packet, base: int) -> None:
        flow = self.sockets.for_script(packet)
        if event.time.kind is TimeKind.ANY:
            patience = self.backend.now() + ANY_PATIENCE
        else:
            patience = base + (event.time.end or event.time.start) + PATIENCE
        at, seen = self._sniff(event, flow, packet, patience)
        if isinstance(packet, TcpPacket):
            at, seen = self._gather(event, flow, packet, at, seen, patience)
        # what was expected is checked with the script's time as it stands, so that the next
        # relative time counts from when the packet came
        self._note(event.line, wire.show_seen(seen, ecn=packet.ip.ecn is not None), at)
        tick = self.config.ts_tick
        ts_tolerance = self.config.within(at) // tick if tick else None
        if self.backend.offloads:
            seen.csum_ok = True
        wrong = list(differences(packet, seen, ts_tolerance))
        if not wrong and (bytes_wrong := flow.payload_error(seen)):
            wrong.append(bytes_wrong)
        try:
            if wrong:
                raise Mismatch(f"not the packet that was expected: {wrong[0]}", wrong[1:])
            self._check_time(event, base, at, "the packet")
        except Mismatch as e:
            if "packet" in self.config.non_fatal:
                self.warnings.append(f"line {event.line}: {e.reason}")
                return
            start = (
                "any time" if event.time.kind is TimeKind.ANY else seconds(base + event.time.start)
            )
            e.details += [
                f"expected  {start:>12}  {wire.show_script(packet)}",
                f"seen      {seconds(at):>12}  {wire.show_seen(seen)}",
                *self._pending(flow),
            ]
            raise

    def _sniff(self, event: Event, flow: Flow, packet: Packet, patience: int) -> tuple[int, Seen]:
        """The next packet of this socket, with the script's numbers."""
        found = self._next(flow, isinstance(packet, IcmpPacket), patience)
        if found is None:
            raise Mismatch(
                "the packet did not come",
                [
                    f"expected  {_when(event)}  {wire.show_script(packet)}",
                    f"seen      nothing until {seconds(self.backend.now())}",
                ],
            )
        at, seen = found
        if isinstance(packet, TcpPacket):
            self.sockets.outbound(flow, packet, seen)
            flow.to_script(seen, packet)
        return at, seen

    def _next(self, flow: Flow, icmp: bool, patience: int) -> tuple[int, Seen] | None:
        backend = self.backend
        while True:
            while (sent := backend.sent()) is not None:
                seen = wire.parse(sent[1])
                if seen is None:
                    continue
                if not self.sockets.of_another(flow, seen) and flow.owns(seen, icmp):
                    return sent[0], seen
                self._note(0, f"{wire.show_seen(seen)} (of another socket)", sent[0])
            if backend.now() >= patience:
                return None
            backend.wait(patience, packet=True)
            self._check_blocking()

    def _gather(
        self, event: Event, flow: Flow, packet: TcpPacket, at: int, seen: Seen, patience: int
    ) -> tuple[int, Seen]:
        """The pieces of a super-segment put together again."""
        if self.config.strict_segments or len(seen.payload) >= packet.length:
            return at, seen
        first = last = seen
        payload = seen.payload
        options, cwr = first.options, first.flags & 128
        while len(payload) < packet.length:
            found = self._next(flow, False, patience)
            if found is None:
                break
            at, last_seen = found
            flow.to_script(last_seen, packet)
            if not continues(first, last, last_seen):
                self._note(event.line, wire.show_seen(first), at)
                raise Mismatch(
                    "the segments do not add up to the one that was expected",
                    [
                        f"expected  {_when(event)}  {wire.show_script(packet)}",
                        f"seen      first         {wire.show_seen(first)}",
                        f"seen      before        {wire.show_seen(last)}",
                        f"seen      {seconds(at):>12}  {wire.show_seen(last_seen)}",
                    ],
                )
            last = last_seen
            payload += last.payload
            options = last.options
        whole = Seen(**{name: getattr(last, name) for name in Seen.__slots__})
        whole.seq, whole.payload, whole.options = first.seq, payload, options
        whole.flags = last.flags & ~128 | cwr
        return at, whole

    def _pending(self, flow: Flow) -> list[str]:
        """What else has been sent already, for the report."""
        lines: list[str] = []
        while (sent := self.backend.sent()) is not None and len(lines) < 8:
            seen = wire.parse(sent[1])
            if seen is not None and flow.owns(seen, False):
                shown = wire.show_seen(flow.to_script(seen, None))
                lines.append(f"after it  {seconds(sent[0]):>12}  {shown}")
        return lines

    def _nothing_left(self) -> None:
        self.backend.settle()
        flow = self.sockets.under_test
        left = self._pending(flow) if flow is not None else []
        if left:
            raise Mismatch("packets that the script does not list", left)


def _anchored(event: Event) -> bool:
    action = event.action
    return isinstance(action, TcpPacket | UdpPacket | IcmpPacket) and action.inbound


def _what(event: Event) -> str:
    action = event.action
    if isinstance(action, SysCall):
        return f"{action.name}()"
    if isinstance(action, Command):
        return "the command"
    return "the code" if isinstance(action, Code) else "the inbound packet"


def _when(event: Event) -> str:
    if event.time.kind is TimeKind.ANY:
        return "at any time "
    sign = "+" if event.time.kind is TimeKind.RELATIVE else ""
    return f"{sign + seconds(event.time.start):>12}"

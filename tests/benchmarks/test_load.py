"""The load generator: it counts what was answered, hides no stall, and refuses to measure what is broken."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks import load

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
REQUEST = load.request("here", "/", b"{}")


@contextmanager
def server(answer: Callable[[socket.socket, int], None]) -> Iterator[load.Target]:
    """Calls `answer` with the connection and the number of the request, one request at a time."""
    lock, seen = threading.Lock(), iter(range(1_000_000))

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(len(REQUEST), socket.MSG_WAITALL):
                with lock:
                    answer(connection, next(seen))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=quietly, args=(connection,)))
            threads[-1].start()

    def quietly(connection: socket.socket) -> None:
        try:
            serve(connection)
        except OSError:
            return

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield load.Target(*listener.getsockname(), [REQUEST])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def test_an_answer_counts_once_however_it_is_split() -> None:
    def byte_by_byte(connection: socket.socket, _: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(OK)):
            connection.sendall(OK[index : index + 1])

    with server(byte_by_byte) as target:
        result = load.closed(target, 2, 10, most=6)
    assert result.statuses == {200: 6} and len(result.milliseconds) == 6


def test_answers_without_length_end_with_their_last_chunk() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    with server(lambda connection, _: connection.sendall(chunked)) as target:
        assert load.closed(target, 1, 10, most=3).statuses == {200: 3}


def test_statuses_are_told_apart_and_unexpected_ones_refused() -> None:
    busy = b"HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n"
    with server(lambda connection, number: connection.sendall(busy if number % 2 else OK)) as target:
        result = load.closed(target, 1, 10, most=4)
    assert result.expect(200, 429).statuses == {200: 2, 429: 2}
    with pytest.raises(load.LoadFailed, match="429: 2"):
        result.expect(200)


def test_nothing_measured_is_no_success() -> None:
    with pytest.raises(load.LoadFailed, match="answers by status"):
        load.Result(1.0, {}, []).expect(200)


def test_a_stall_counts_for_every_request_that_it_kept_from_being_sent() -> None:
    stalled = threading.Event()

    def slow_at_first(connection: socket.socket, number: int) -> None:
        if number == 0:
            stalled.wait(0.2)
        connection.sendall(OK)

    with server(slow_at_first) as target:
        result = load.opened(target, 200, 0.2, connections=1)
    late = [milliseconds for milliseconds in result.milliseconds if milliseconds > 20]
    assert len(late) > 10, "sent one after the other, a single one would be late"


def test_the_same_seed_means_the_same_requests() -> None:
    with server(lambda connection, _: connection.sendall(OK)) as target:
        counts = [len(load.opened(target, 300, 0.1, seed=seed).milliseconds) for seed in (1, 1, 2)]
    assert counts[0] == counts[1] != counts[2]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", "closed a connection within an answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "without a length"),
    ],
)
def test_what_cannot_be_measured_is_said(answer: bytes, message: str) -> None:
    def broken(connection: socket.socket, _: int) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    with server(broken) as target, pytest.raises(load.LoadFailed, match=message):
        load.closed(target, 1, 10, most=1)


def test_percentiles_are_of_the_ranked_times() -> None:
    result = load.Result(1.0, {200: 100}, [float(n) for n in reversed(range(100))])
    assert (result.percentile(50), result.percentile(99), result.percentile(100)) == (50.0, 99.0, 99.0)


def test_cores_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    with load.on_cores({min(before)}):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_the_cost_of_a_process_grows_with_its_work() -> None:
    pids, before = [os.getpid()], load.cpu_seconds([os.getpid()])
    while load.cpu_seconds(pids) == before:
        sum(range(10_000))
    assert load.busy_seconds() > 0 and load.megabytes(pids) > 1

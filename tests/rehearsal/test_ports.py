"""Ports and loopback blocks are kept while free, and never shared."""

import socket

import pytest

from rehearsal.cluster import ports


def test_ports_are_kept_over_a_restart(tmp_path):
    file = tmp_path / "ports.json"
    assert ports.assign(file) == ports.assign(file)


def test_a_port_that_someone_took_is_replaced(tmp_path):
    file = tmp_path / "ports.json"
    before = ports.assign(file)
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", before["apiserver"]))
        thief.listen(1)
        after = ports.assign(file)
    assert after["apiserver"] != before["apiserver"]


def test_an_unreadable_port_file_is_replaced(tmp_path):
    file = tmp_path / "ports.json"
    file.write_text('{"etcd": ')
    assert set(ports.assign(file)) == set(ports.PORTS)


def test_two_rehearsals_never_share_a_pod_block(tmp_path):
    first, holder = ports.take_pod_block(tmp_path / "first")
    with holder:
        second, other = ports.take_pod_block(tmp_path / "second")
        other.close()
    assert first != second


def test_a_pod_block_is_kept_over_a_restart(tmp_path):
    file = tmp_path / "block"
    file.write_text("77")
    block, holder = ports.take_pod_block(file)
    holder.close()
    assert block == 77


def test_no_free_port_is_said_with_the_way_out(monkeypatch):
    def refuse(*_):
        raise OSError("Address already in use")

    monkeypatch.setattr(ports.socket.socket, "bind", refuse)
    with pytest.raises(ports.NoFreePort, match="ip_local_port_range"):
        ports.free_ports(1)

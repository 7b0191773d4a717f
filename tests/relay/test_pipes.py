"""Pipes to splice through: lent, returned, bounded, and of what size the system allows."""

from __future__ import annotations

import errno
import os
import sys
from fcntl import fcntl
from typing import Any

import pytest

from ..support.relay import open_descriptors

if sys.platform != "linux":
    pytest.skip("the engine is Linux's", allow_module_level=True)

from hypothesis import given, strategies as st

from socksproxy.relay import pipes
from socksproxy.relay.pipes import LEAST, WANTED, Pipe, PipePool

SETPIPE_SZ, GETPIPE_SZ = 1031, 1032


def take(pool: PipePool) -> Pipe:
    """A pipe of *pool*, which has one."""
    pipe = pool.take()
    assert pipe is not None
    return pipe


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class TestPipe:
    """What is lent is fit for splicing."""

    def test_bytes_go_through(self) -> None:
        pipe = take(PipePool())
        os.write(pipe.write, b"hello")
        assert os.read(pipe.read, 10) == b"hello"
        pipe.close()
        assert not is_open(pipe.read)
        assert not is_open(pipe.write)

    def test_never_blocks(self) -> None:
        """A pipe that blocks would stop every session."""
        pipe = take(PipePool())
        with pytest.raises(BlockingIOError):
            os.read(pipe.read, 1)
        assert os.write(pipe.write, bytes(2 * pipe.size)) == pipe.size
        with pytest.raises(BlockingIOError):
            os.write(pipe.write, b"x")
        pipe.close()

    def test_not_inherited(self) -> None:
        pipe = take(PipePool())
        assert not os.get_inheritable(pipe.read)
        assert not os.get_inheritable(pipe.write)
        pipe.close()

    def test_size(self) -> None:
        pipe = take(PipePool())
        assert LEAST <= pipe.size <= WANTED
        assert fcntl(pipe.write, GETPIPE_SZ) == pipe.size
        pipe.close()


class TestPool:
    """No more than so many at once, of which so many wait to be lent again."""

    def test_bound(self) -> None:
        pool = PipePool(most=2)
        lent = [take(pool), take(pool)]
        assert pool.take() is None
        assert pool.lent == 2
        pool.give(lent.pop())
        assert pool.lent == 1
        lent.append(take(pool))
        assert pool.take() is None
        for pipe in lent:
            pipe.close()

    def test_none_at_all(self) -> None:
        before = open_descriptors()
        assert PipePool(most=0).take() is None
        assert open_descriptors() == before

    def test_lent_again(self) -> None:
        """Opening and enlarging one is four system calls and a megabyte of pages."""
        pool = PipePool()
        pipe = take(pool)
        pool.give(pipe)
        assert take(pool) == pipe
        pipe.close()

    def test_kept(self) -> None:
        """What a rush has opened does not stay open for ever."""
        pool = PipePool(keep=2)
        lent = [take(pool) for _ in range(5)]
        for pipe in lent:
            pool.give(pipe)
        assert pool.lent == 0
        assert [is_open(pipe.read) and is_open(pipe.write) for pipe in lent] == [True] * 2 + [False] * 3
        pool.close()

    def test_a_dirty_pipe_is_closed(self) -> None:
        """Else one session's bytes would come out in another's."""
        pool = PipePool()
        pipe = take(pool)
        pipe.held = os.write(pipe.write, b"somebody's secret")
        pool.give(pipe)
        assert not is_open(pipe.read)
        assert not is_open(pipe.write)
        again = take(pool)
        with pytest.raises(BlockingIOError):
            os.read(again.read, 1)
        again.close()

    def test_close(self) -> None:
        before = open_descriptors()
        pool = PipePool()
        lent = [take(pool), take(pool)]
        for pipe in lent:
            pool.give(pipe)
        pool.close()
        pool.close()
        assert open_descriptors() == before

    @given(st.lists(st.sampled_from(["take", "give", "give dirty"]), max_size=60))
    def test_any_order(self, acts: list[str]) -> None:
        """Never more than it may have, never one pipe lent twice, and nothing left in the end."""
        before = open_descriptors()
        pool = PipePool(most=4, keep=2)
        lent: list[Pipe] = []
        for act in acts:
            if act == "take":
                pipe = pool.take()
                assert (pipe is None) is (len(lent) == 4)
                if pipe is not None:
                    assert pipe not in lent
                    lent.append(pipe)
            elif lent:
                lent[0].held = int(act != "give")
                pool.give(lent.pop(0))
            assert pool.lent == len(lent)
            assert len(open_descriptors() - before) <= 2 * (4 + 2)
        for pipe in lent:
            pipe.held = 1
            pool.give(pipe)
        pool.close()
        assert open_descriptors() == before


class TestStingySystem:
    """Whatever it denies, bulk goes on without a pipe."""

    def test_out_of_descriptors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def none_left(flags: int) -> tuple[int, int]:
            raise OSError(errno.EMFILE, "Too many open files")

        pool = PipePool(most=1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe2", none_left)
            assert pool.take() is None
        assert pool.lent == 0
        take(pool).close()

    @pytest.mark.parametrize(
        ("allowed", "asked"),
        [
            (1 << 20, [1 << 20]),
            (1 << 19, [1 << 20, 1 << 19]),
            (1 << 17, [1 << 20, 1 << 19, 1 << 18, 1 << 17]),
        ],
    )
    def test_pipe_max_size(self, monkeypatch: pytest.MonkeyPatch, allowed: int, asked: list[int]) -> None:
        """A lower /proc/sys/fs/pipe-max-size: the next smaller size is asked for."""
        sizes: list[int] = []
        real: Any = fcntl

        def limited(descriptor: int, command: int, size: int = 0) -> int:
            if command == SETPIPE_SZ:
                sizes.append(size)
                if size > allowed:
                    raise PermissionError(errno.EPERM, "Operation not permitted")
            return int(real(descriptor, command, size))

        monkeypatch.setattr(pipes, "fcntl", limited)
        pipe = take(PipePool(wanted=1 << 20))
        assert sizes == asked
        assert pipe.size == allowed
        pipe.close()

    @pytest.mark.parametrize(("holds", "is_lent"), [(4096, False), (8192, False), (LEAST, True)])
    def test_over_the_users_share(self, monkeypatch: pytest.MonkeyPatch, holds: int, is_lent: bool) -> None:
        """Beyond pipe-user-pages-soft F_SETPIPE_SZ is refused and a new pipe holds a page or two."""

        def refused(descriptor: int, command: int, size: int = 0) -> int:
            if command == SETPIPE_SZ:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            return holds

        before = open_descriptors()
        monkeypatch.setattr(pipes, "fcntl", refused)
        pool = PipePool()
        pipe = pool.take()
        assert (pipe is not None) is is_lent
        assert pool.lent == is_lent
        if pipe is not None:
            assert pipe.size == holds
            pipe.close()
        assert open_descriptors() == before

    def test_little_wanted(self) -> None:
        """What every pipe has anyway is not asked for."""
        pipe = take(PipePool(wanted=4096))
        assert pipe.size >= LEAST
        pipe.close()

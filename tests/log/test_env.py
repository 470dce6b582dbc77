"""The real file system behind the verbs: modes, replacement, locks, and errors as types."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from copycat.errors import DirectoryInUseError, DiskError, DiskFullError
from copycat.storage._native import Env, File

__all__: list[str] = []


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directories_and_files_are_private(tmp_path: Path) -> None:
    env = Env()
    env.make_directory(str(tmp_path / "a" / "b"))
    env.make_directory(str(tmp_path / "a" / "b"))  # again: nothing
    env.replace_file(str(tmp_path / "a" / "b" / "f"), b"data")
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b" / "f")) == (0o700, 0o600)
    assert env.list(str(tmp_path / "a" / "b")) == ["f"]


def test_replace_leaves_one_whole_file(tmp_path: Path) -> None:
    env, path = Env(), str(tmp_path / "f")
    (tmp_path / "f.new").write_bytes(b"left by a crash before the rename")
    env.replace_file(path, b"old")
    env.replace_file(path, b"newer")
    assert env.read_file(path) == b"newer"
    assert env.list(str(tmp_path)) == ["f"]
    env.remove(path)
    assert not env.exists(path)


def test_writes_reads_and_maps(tmp_path: Path) -> None:
    env = Env()
    file = env.create(str(tmp_path / "f"))
    file.allocate(8192)
    file.zero_fill(0, 3 << 20)
    file.write(4096, memoryview(b"payload"))
    file.begin_sync().run()
    assert file.size() == 3 << 20
    assert file.read(4094, 11) == b"\0\0payload\0\0"
    assert file.read((3 << 20) - 2, 10) == b"\0\0"
    view = env.open(str(tmp_path / "f")).map()
    del file
    assert bytes(view[4096:4103]) == b"payload"
    assert view.readonly


def test_an_empty_file_maps_to_nothing(tmp_path: Path) -> None:
    file = Env().create(str(tmp_path / "f"))
    assert (bytes(file.map()), file.read(0, 10)) == (b"", b"")


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    env, path = Env(), str(tmp_path / "lock")
    lock = env.lock(path)
    with pytest.raises(DirectoryInUseError) as caught:
        Env().lock(path)
    assert (vars(caught.value)["pid"], vars(caught.value)["path"]) == (os.getpid(), str(tmp_path))
    lock.close()
    lock.close()
    env.lock(path).close()


def test_a_lock_goes_with_its_object(tmp_path: Path) -> None:
    env, path = Env(), str(tmp_path / "lock")
    lock = env.lock(path)
    del lock
    env.lock(path).close()


def test_f12_a_full_disk_has_its_own_error() -> None:
    with pytest.raises(DiskFullError) as caught:
        Env().open("/dev/full", write=True).write(0, b"x")
    error = caught.value
    assert (error.errno, vars(error)["path"], vars(error)["offset"]) == (
        errno.ENOSPC,
        "/dev/full",
        0,
    )
    assert isinstance(error, OSError)


def test_other_errors_have_types_and_fields(tmp_path: Path) -> None:
    env, path = Env(), str(tmp_path / "f")
    with pytest.raises(FileNotFoundError) as missing:
        env.read_file(path)
    assert missing.value.filename == path
    for verb in (env.open, env.remove, env.list, env.sync_directory):
        with pytest.raises(FileNotFoundError):
            verb(path)
    env.create(path)
    with pytest.raises(DiskError) as caught:
        env.create(path)
    assert (caught.value.errno, vars(caught.value)["operation"]) == (errno.EEXIST, "create")
    with pytest.raises(DiskError) as bad:
        env.open(path).write(0, b"not opened for writing")
    assert bad.value.errno == errno.EBADF
    with pytest.raises(TypeError):
        File()

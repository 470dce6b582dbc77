# cython: language_level=3, binding=True, auto_pickle=False
# cython: autotestdict=False
# cython: c_string_type=str, c_string_encoding=utf8
# distutils: language=c++
"""The native log: it translates between Python and csrc/ and decides nothing.

Every error is a type of copycat.errors, by way of _raise.hpp; signatures with types stand in
the stub. What blocks or is long releases the GIL.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    NOWAIT_LOCK,
    PY_LOCK_ACQUIRED,
    PY_LOCK_INTR,
    PyLockStatus,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_get_thread_ident,
    PyThread_release_lock,
    PyThread_type_lock,
)
from cython.operator cimport dereference
from libc.string cimport memcpy
from libcpp.memory cimport static_pointer_cast
from libcpp.utility cimport move

from array import array as _array
from typing import NamedTuple

from copycat.types import CompactionResult as _CompactionResult
from copycat.types import EntryId as _EntryId
from copycat.types import Release as _Release
from copycat.types import Run as _Run
from copycat.types import SegmentStats as _SegmentStats
from copycat.types import Span as _Span
from copycat.types import TermRun as _TermRun

__all__ = [
    "Batch", "Env", "FaultEnv", "File", "FileSync", "HardState", "Lock", "NativeLog",
    "RecoveryReport", "ReentrantLock", "Rewrite",
    "SaveTicket", "SyncTicket", "allocation_refusals",
    "check_commands", "crc32c",
    "crc32c_force_table", "crc32c_is_hardware", "encode_batch", "encode_bytes", "encode_gap",
    "encode_mark", "lz4_compress", "lz4_decompress", "open_hard_state", "open_log",
    "run_locked",
    "watch_allocations",
]

cdef size_t LONG = 65536  # below this many bytes, letting go of the GIL costs more than it gives
cdef uint8_t NOTHING = 0


# --- checksums --------------------------------------------------------------------------------

def crc32c(data, seed=0):
    """CRC32C of a buffer; `seed` is the value of the bytes before it."""
    cdef Block block = hold_buffer(data)
    cdef uint32_t before = seed
    if block.bytes.size() < LONG:
        return c_crc32c(block.bytes, before)
    with nogil:
        before = c_crc32c(block.bytes, before)
    return before


def crc32c_is_hardware():
    """True when the processor's instruction is used."""
    return c_is_hardware()


def crc32c_force_table(on):
    """For tests: use the table, or no longer. Returns whether it was forced before."""
    return c_force_table(on)


def watch_allocations():
    """From now on count what the interpreter's allocator refuses. A second call does nothing."""
    c_watch_allocations()


def allocation_refusals():
    """(possible, impossible): how many allocations this thread was refused since then, by
    whether any machine could have granted them."""
    return c_refusals.possible, c_refusals.impossible


def lz4_compress(data):
    """At most 64 KiB as one LZ4 block; None when that is not shorter. For tests."""
    cdef Block block = hold_buffer(data)
    cdef size_t size = block.bytes.size()
    cdef bytes into = PyBytes_FromStringAndSize(NULL, size)
    cdef size_t most = size - 1 if size else 0
    cdef size_t made = c_lz4_compress(
        block.bytes, MutableView(<uint8_t*> PyBytes_AS_STRING(into), most))
    return into[:made] if made else None


def lz4_decompress(data, size):
    """The `size` bytes that one LZ4 block stands for; None when it stands for no such. For tests.
    """
    cdef Block block = hold_buffer(data)
    cdef bytes into = PyBytes_FromStringAndSize(NULL, size)
    cdef size_t most = size
    cdef cbool is_good = c_lz4_decompress(
        block.bytes, MutableView(<uint8_t*> PyBytes_AS_STRING(into), most))
    return into if is_good else None


# --- locks ------------------------------------------------------------------------------------

@cython.final
cdef class ReentrantLock:
    """`threading.RLock` for the functions here, which take it without a call of Python.

    An RLock that is taken and released costs a third of the read of one entry.
    """

    cdef PyThread_type_lock lock
    cdef unsigned long owner  # both are read and written with the GIL held
    cdef size_t depth

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.lock == NULL:
            return
        if self.depth:
            PyThread_release_lock(self.lock)
        PyThread_free_lock(self.lock)

    cdef int take(self) except -1:
        cdef unsigned long me = <unsigned long> PyThread_get_thread_ident()
        if self.depth == 0 or self.owner != me:
            if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
                self.wait()
            self.owner = me
        self.depth += 1
        return 0

    cdef int wait(self) except -1:
        cdef PyLockStatus status = PY_LOCK_INTR
        while status != PY_LOCK_ACQUIRED:
            with nogil:
                status = PyThread_acquire_lock_timed(self.lock, -1, True)
            if status == PY_LOCK_INTR:
                PyErr_CheckSignals()  # the handler may raise: then the lock was not taken
        return 0

    cdef void give_back(self) noexcept:
        self.depth -= 1
        if self.depth == 0:
            PyThread_release_lock(self.lock)

    def acquire(self, timeout=-1):
        """Take the lock, within `timeout` seconds unless it is below 0; whether that was done."""
        cdef unsigned long me = <unsigned long> PyThread_get_thread_ident()
        cdef PY_TIMEOUT_T microseconds = <PY_TIMEOUT_T> (max(timeout, 0) * 1e6)
        cdef PyLockStatus status
        if timeout < 0 or (self.depth and self.owner == me):
            self.take()
            return True
        with nogil:
            status = PyThread_acquire_lock_timed(self.lock, microseconds, False)
        if status != PY_LOCK_ACQUIRED:
            return False
        self.owner = me
        self.depth = 1
        return True

    def release(self):
        """RuntimeError unless this thread has taken the lock."""
        if self.depth == 0 or self.owner != <unsigned long> PyThread_get_thread_ident():
            raise RuntimeError("only the thread that took a lock releases it")
        self.give_back()

    def locked(self):
        """Whether any thread has taken it."""
        return self.depth != 0


def run_locked(ReentrantLock lock not None, function, *arguments):
    """Call `function` while `lock` is held; what it returns.

    The lock is taken and released here, between no two instructions of Python: wherever a signal
    handler raises, nobody is left with the lock (`with` has such places).
    """
    lock.take()
    try:
        return function(*arguments)
    finally:
        lock.give_back()


# --- batches ----------------------------------------------------------------------------------

@cython.final
cdef class Batch:
    """The frames of one span; see copycat.storage.interface.Batch. Views keep the bytes alive."""

    cdef Frames frames
    cdef Cursor cursor  # used with the GIL held only
    cdef object cached_span
    cdef object __weakref__

    def __init__(self):
        raise TypeError("a Batch comes from encode_batch, Batch.from_wire or a log")

    @staticmethod
    cdef Batch wrap(Frames frames):
        cdef Batch batch = Batch.__new__(Batch)
        batch.frames = frames
        return batch

    @staticmethod
    def from_wire(buffer, span):
        """Check every frame of `buffer` and keep it, without a copy. ProtocolError.

        Nobody may change the buffer as long as the batch or a view of it lives.
        """
        cdef Frames frames
        frames.block = hold_buffer(buffer)
        frames.span.term, frames.span.first, frames.span.end = span
        if frames.nbytes() < LONG:
            frames.may_have_gaps = verify_frames(frames.block.bytes, frames.span)
        else:
            with nogil:
                frames.may_have_gaps = verify_frames(frames.block.bytes, frames.span)
        return Batch.wrap(frames)

    @property
    def span(self):
        """Term and indexes, as a Span."""
        if self.cached_span is None:
            self.cached_span = span_object(self.frames.span, _Span)
        return self.cached_span

    @property
    def nbytes(self):
        """Bytes of all frames, headers and padding included."""
        return self.frames.nbytes()

    @property
    def first_time_ms(self):
        """Log time of the first entry; 0 in an empty batch."""
        return self.time_of(self.frames.span.first) if self.frames.nbytes() else 0

    @property
    def last_time_ms(self):
        """Log time of the last entry; 0 in an empty batch."""
        return self.time_of(self.frames.span.end - 1) if self.frames.nbytes() else 0

    cdef uint64_t time_of(self, uint64_t index) except? 0:
        cdef Cursor cursor  # its own: looking at the end must not lose the place
        cdef Cursor at = frame_of(self.frames, index, &cursor)
        return frame_at(self.frames.block.bytes, at.offset).time_ms

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        cdef const uint8_t* data = self.frames.block.bytes.data()
        if data == NULL:
            data = &NOTHING
        PyBuffer_FillInfo(buffer, self, <void*> data, <Py_ssize_t> self.frames.nbytes(), 1, flags)

    def slice(self, first, end):
        """The frames of [first, end), sharing the bytes unless a gap is cut. IndexError."""
        return Batch.wrap(c_slice(self.frames, first, end, &self.cursor))

    def runs(self, first, end):
        """Entries [first, end) cut to copycat.types.Run. IndexError outside the span."""
        return run_list(self.frames, first, end, &self.cursor, _Run)

    def entries(self):
        """(index, kind, time_ms, payload) of every entry, gaps left out; payloads are copies."""
        cdef list rows = []
        cdef View data = self.frames.block.bytes
        cdef size_t at = 0
        cdef Frame frame
        while at < data.size():
            frame = frame_at(data, at)
            if not frame.is_gap():
                rows.append((frame.index, frame.kind, frame.time_ms, as_bytes(frame.payload)))
            at += frame.total()
        return rows

    def entry(self, index, type as_type not None):
        """Entry `index` as NativeLog.entry makes it; None in a gap. IndexError outside."""
        cdef uint64_t number = index
        cdef Cursor at
        cdef Frame frame
        if number >= self.frames.span.end:  # frame_of knows the end as a place to cut
            raise IndexError(f"entry {index} is not in a batch of {self.span}")
        at = frame_of(self.frames, number, &self.cursor)
        frame = frame_at(self.frames.block.bytes, at.offset)
        if frame.is_gap():
            return None
        return entry_object(index, frame.term, frame.payload, <PyTypeObject*> as_type)

    def payloads(self):
        """The payload of every entry, gaps left out, copied: what a scan hands out."""
        cdef list rows = []
        cdef View data = self.frames.block.bytes
        cdef size_t at = 0
        cdef Frame frame
        while at < data.size():
            frame = frame_at(data, at)
            if not frame.is_gap():
                rows.append(as_bytes(frame.payload))
            at += frame.total()
        return rows

    def views(self):
        """The payload of every entry, without gaps, as a memoryview that keeps the batch alive."""
        cdef list rows = []
        cdef View data = self.frames.block.bytes
        cdef size_t at = 0
        cdef Frame frame
        whole = memoryview(self)
        while at < data.size():
            frame = frame_at(data, at)
            if not frame.is_gap():
                rows.append(whole[at + 32:at + 32 + frame.payload.size()])
            at += frame.total()
        return rows

    def checksums(self):
        """(index, term, crc) of every entry, gaps left out."""
        cdef list rows = []
        cdef View data = self.frames.block.bytes
        cdef size_t at = 0
        cdef Frame frame
        while at < data.size():
            frame = frame_at(data, at)
            if not frame.is_gap():
                rows.append((frame.index, frame.term, frame.crc))
            at += frame.total()
        return rows

    @property
    def has_gaps(self):
        """True when some of its indexes are in a gap (C3)."""
        return bool(self.gaps())

    def gaps(self):
        """(first, end, valid_from) of every gap, in order; quick when there is none."""
        cdef list rows = []
        cdef View data = self.frames.block.bytes
        cdef size_t at = 0
        cdef Frame frame
        if not self.frames.may_have_gaps:
            return rows
        while at < data.size():
            frame = frame_at(data, at)
            if frame.is_gap():
                rows.append((frame.index, frame.end(), frame.gap().valid_from))
            at += frame.total()
        return rows


def check_commands(body, count, max_entry_size):
    """ValueError unless `count` lengths and operations fill `body`; EntryTooLargeError."""
    cdef Block block = hold_buffer(body)
    c_check_commands(block.bytes, count, max_entry_size)


def encode_bytes(list items not None, limit):
    """Lengths, then the bytes, of a list of bytes; None when one is of another type, or when
    all together are above `limit` bytes."""
    return body_object(items, limit)


def encode_batch(term, first, time_ms, items):
    """Items (copycat.storage.interface.EncodeItem) as frames from index `first` on."""
    cdef ItemBuffers buffers
    cdef Frames frames
    cdef uint64_t in_term = term
    cdef uint64_t from_index = first
    cdef uint64_t at_ms = time_ms
    buffers.take(items)
    if buffers.nbytes() < LONG:
        frames = c_encode_batch(in_term, from_index, at_ms, buffers.items())
    else:
        with nogil:
            frames = c_encode_batch(in_term, from_index, at_ms, buffers.items())
    return Batch.wrap(frames)


def encode_gap(term, first, end, time_ms, valid_from):
    """A batch of one gap: the deleted entries [first, end) of one term (C3). ValueError if empty.

    time_ms: log time of the last entry that it stands for; valid_from: see C22.
    """
    cdef CSpan span
    span.term, span.first, span.end = term, first, end
    return Batch.wrap(c_encode_gap(span, time_ms, valid_from))


def encode_mark(batch, *, durable_upto, uuid, offset, flags=0):
    """The 32 bytes of the mark before `batch` in the file `uuid` at `offset` (C5): for tests."""
    cdef Frames frames = (<Batch?> batch).frames
    cdef Mark mark
    cdef Uuid place
    cdef bytes block = PyBytes_FromStringAndSize(NULL, 32)
    if len(uuid) != 16:
        raise ValueError(f"a uuid has 16 bytes, not {len(uuid)}")
    memcpy(place.data(), PyBytes_AS_STRING(uuid), 16)
    mark.size = <uint32_t> frames.nbytes()
    mark.first_index = frames.span.first
    mark.durable_upto = durable_upto
    mark.frames_hash = c_frames_hash(frames.block.bytes)
    mark.flags = flags
    c_encode_mark(mark, place, offset, MutableView(<uint8_t*> PyBytes_AS_STRING(block), 32))
    return block


include "_env.pxi"
include "_hard_state.pxi"
include "_log.pxi"

# A part of _native.pyx: the segmented log.

cdef extern from "log.hpp" namespace "copycat":
    cdef cppclass IndexSlot:
        pass
    cdef cppclass CEntryId "copycat::EntryId":
        uint64_t term
        uint64_t index
    cdef cppclass CTermRun "copycat::TermRun":
        uint64_t term
        uint64_t first
    cdef cppclass CLogOptions "copycat::LogOptions":
        uint64_t max_segment_size
        uint64_t max_entries
        uint64_t min_free_space
        cbool read_only
        cbool mapped
        cbool compress
    cdef cppclass CReport "copycat::RecoveryReport":
        cbool clean
        uint64_t dropped_bytes
        uint64_t dropped_from_index
        uint64_t copied_entries
        vector[string] obsolete_files
        uint64_t segments
        double seconds
    cdef cppclass CSegmentInfo "copycat::SegmentInfo":
        uint64_t id
        uint32_t version
        uint64_t first_index
        uint64_t last_index
        uint64_t bytes
        cbool sealed
    cdef cppclass Indexes "std::span<const std::uint64_t>":
        pass
    cdef enum class CRelease "copycat::Release":
        none
    cdef cppclass CLimits "copycat::Limits":
        uint64_t horizon
        uint64_t deletion_floor
        uint64_t snapshot_index
    cdef cppclass CStats "copycat::SegmentStats":
        uint64_t id
        uint32_t version
        uint64_t first_index
        uint64_t last_index
        uint64_t bytes
        uint64_t entries
        uint64_t released
        uint64_t removable_minor
        uint64_t removable_major
        cbool sealed
    cdef cppclass CResult "copycat::CompactionResult":
        uint64_t segments_before
        uint64_t segments_after
        uint64_t bytes_before
        uint64_t bytes_after
        uint64_t entries_dropped
        cbool is_cut_short
    cdef cppclass CRewrite "copycat::Rewrite":
        void run() except +raise_error nogil
        void abandon() nogil
    cdef cppclass CSyncTicket "copycat::SyncTicket":
        void run() except +raise_error nogil
    cdef cppclass CLog "copycat::SegmentedLog":
        CLog(shared_ptr[CEnv], const string&, const CLogOptions&) except +raise_error nogil
        uint64_t first_index()
        uint64_t last_index()
        CEntryId last_entry()
        CEntryId before()
        uint64_t durable_index()
        uint64_t valid_from()
        uint64_t truncations()
        uint64_t entries() except +raise_error
        vector[CTermRun] term_runs() except +raise_error
        CReport report() except +raise_error
        uint64_t rebuilt_indexes()
        uint64_t size()
        uint64_t disk_usage() except +raise_error nogil
        uint64_t free_space() except +raise_error
        vector[CSegmentInfo] segments() except +raise_error
        Block slots(uint64_t) except +raise_error
        void append(const Frames&) except +raise_error nogil
        shared_ptr[CSyncTicket] begin_sync() except +raise_error
        const shared_ptr[CSyncTicket]& in_flight()
        uint64_t end_sync(const CSyncTicket&) except +raise_error
        cbool wants_sync()
        Frames read(uint64_t, uint64_t, uint64_t) except +raise_error nogil
        Frame frame(uint64_t, Block&) except +raise_error nogil
        void truncate(uint64_t) except +raise_error nogil
        void trim(uint64_t) except +raise_error nogil
        void reset(const CEntryId&) except +raise_error nogil
        void mark_idle() except +raise_error
        void release(Indexes, CRelease) except +raise_error nogil
        vector[CStats] segment_stats(const CLimits&) except +raise_error nogil
        shared_ptr[CRewrite] rewrite(const vector[vector[uint64_t]]&, const CLimits&, cbool) \
            except +raise_error nogil
        CResult install(CRewrite&) except +raise_error nogil
        cbool has_room(uint64_t, uint64_t, cbool) except +raise_error
        cbool wants_spare()
        void prepare_spare() except +raise_error nogil
        cbool has_obsolete_files()
        void remove_obsolete_files() except +raise_error nogil
        void close() except +raise_error nogil


cdef extern from "_objects.hpp" namespace "copycat":
    Indexes index_span(const Block&) nogil
    object entry_id_object(const CEntryId&, object) except +raise_error
    vector[vector[uint64_t]] number_lists(object) except +raise_error


cdef uint64_t SCAN_BYTES = 256 << 10  # stays in the processor's cache between read and check

RecoveryReport = NamedTuple("RecoveryReport", [
    ("clean", bool), ("dropped_bytes", int), ("dropped_from_index", int),
    ("rebuilt_indexes", int), ("copied_entries", int), ("obsolete_files", list[str]),
    ("segments", int), ("seconds", float),
])


@cython.final
cdef class SyncTicket:
    """One sync in flight; `run` may be called in any thread."""

    cdef shared_ptr[CSyncTicket] work

    def __init__(self):
        raise TypeError("a SyncTicket comes from NativeLog.begin_sync")

    def run(self):
        """Make durable what the ticket covers, in the order of C8. DiskError, LogPoisonedError."""
        with nogil:
            dereference(self.work).run()


@cython.final
cdef class Rewrite:
    """Sealed segments that are being written anew; see copycat.storage.interface.Rewrite."""

    cdef shared_ptr[CRewrite] work

    def __init__(self):
        raise TypeError("a Rewrite comes from NativeLog.rewrite")

    def run(self):
        """Write, sync, read back and verify; any thread. It leaves no file when it fails."""
        with nogil:
            dereference(self.work).run()

    def abandon(self):
        """Give up: a run in another thread ends soon and leaves nothing. Any thread."""
        with nogil:
            dereference(self.work).abandon()


cdef CLimits limits_of(limits) except *:
    cdef CLimits out
    out.horizon, out.deletion_floor, out.snapshot_index = limits
    return out


@cython.final
cdef class NativeLog:
    """A durable log in one directory; see copycat.storage.interface.ReplicaLog."""

    cdef unique_ptr[CLog] log
    cdef object __weakref__

    def __init__(self):
        raise TypeError("a NativeLog comes from open_log")

    @property
    def first_index(self):
        """1 in a new log; last_index + 1 when empty."""
        return dereference(self.log).first_index()

    @property
    def last_index(self):
        """0 in a new log."""
        return dereference(self.log).last_index()

    @property
    def last_entry(self):
        """Term and index of the last entry, as an EntryId."""
        return entry_id_object(dereference(self.log).last_entry(), _EntryId)

    @property
    def before(self):
        """The entry just below first_index, as an EntryId; NO_ENTRY in a whole log."""
        return entry_id_object(dereference(self.log).before(), _EntryId)

    @property
    def valid_from(self):
        """The largest valid_from of any gap (C22); 0 in a log without gaps."""
        return dereference(self.log).valid_from()

    @property
    def durable_index(self):
        """What this process saw synced (C1, C7)."""
        return dereference(self.log).durable_index()

    @property
    def truncations(self):
        """How often entries were taken off the end."""
        return dereference(self.log).truncations()

    @property
    def entries(self):
        """How many there are, gaps left out."""
        return dereference(self.log).entries()

    @property
    def report(self):
        """What opening found, as a RecoveryReport; rebuilt_indexes counts later ones too."""
        cdef CReport report = dereference(self.log).report()
        return RecoveryReport(
            report.clean, report.dropped_bytes, report.dropped_from_index,
            dereference(self.log).rebuilt_indexes(), report.copied_entries, report.obsolete_files,
            report.segments, report.seconds,
        )

    @property
    def size(self):
        """Bytes of headers and records, without what is allocated ahead."""
        return dereference(self.log).size()

    @property
    def disk_usage(self):
        """Bytes that all files of the log take on the disk, allocated ones included. DiskError."""
        cdef uint64_t nbytes
        with nogil:
            nbytes = dereference(self.log).disk_usage()
        return nbytes

    @property
    def free_space(self):
        """Bytes that may still be written on the disk of the log. DiskError."""
        return dereference(self.log).free_space()

    def term_runs(self):
        """Runs of terms of the whole log, oldest first."""
        cdef CTermRun run
        return [_TermRun(run.term, run.first) for run in dereference(self.log).term_runs()]

    def segments(self):
        """(id, version, first_index, last_index, bytes, sealed), oldest first."""
        cdef CSegmentInfo row
        return [(row.id, row.version, row.first_index, row.last_index, row.bytes, row.sealed)
                for row in dereference(self.log).segments()]

    def index_array(self, segment_id):
        """One (offset u4, size u4) a record, read-only, over the mapped index; tail: a copy.

        A record is an entry, or a gap: then the highest bit of its size is set.
        IndexError when no segment has this id.
        """
        import numpy  # its 60 ms are for those who ask for arrays
        view = memoryview(Mapping_.wrap(dereference(self.log).slots(segment_id)))
        return numpy.frombuffer(view, dtype=[("offset", "<u4"), ("size", "<u4")])

    def append(self, batch):
        """Write `batch` at last_index + 1. ValueError, DiskFullError (no change), DiskError."""
        cdef Frames frames = (<Batch?> batch).frames
        if frames.nbytes() < LONG:
            dereference(self.log).append(frames)
        else:
            with nogil:
                dereference(self.log).append(frames)

    def begin_sync(self):
        """A ticket for everything appended so far; at most one is in flight."""
        cdef SyncTicket ticket = SyncTicket.__new__(SyncTicket)
        ticket.work = dereference(self.log).begin_sync()
        return ticket

    def sync_in_flight(self):
        """The ticket that was begun and not ended, or None: an interrupted caller's."""
        cdef SyncTicket ticket = SyncTicket.__new__(SyncTicket)
        ticket.work = dereference(self.log).in_flight()
        return ticket if ticket.work else None

    def end_sync(self, ticket):
        """After ticket.run(): the new durable_index, clamped by truncations since (C6)."""
        return dereference(self.log).end_sync(dereference((<SyncTicket?> ticket).work))

    def wants_sync(self):
        """True while a roll, truncation or trim waits for the next sync to make it durable."""
        return dereference(self.log).wants_sync()

    def read(self, first, end, max_bytes):
        """Frames from `first`, at least one; never across a segment, term or configuration."""
        cdef uint64_t from_index = first
        cdef uint64_t to_index = end
        cdef uint64_t limit = max_bytes
        cdef Frames frames
        if limit < LONG:
            frames = dereference(self.log).read(from_index, to_index, limit)
        else:
            with nogil:
                frames = dereference(self.log).read(from_index, to_index, limit)
        return Batch.wrap(frames)

    def get(self, index):
        """(term, kind, time_ms, payload); None in a gap. IndexError, CorruptLogError."""
        cdef Block keep
        cdef Frame frame = dereference(self.log).frame(index, keep)
        if frame.is_gap():
            return None
        return frame.term, frame.kind, frame.time_ms, as_bytes(frame.payload)

    def entry(self, index, type as_type not None):
        """(index, term, payload) as `as_type`, a tuple's subclass without fields of its own.

        None in a gap. IndexError, CorruptLogError.
        """
        return self.entry_of(index, as_type)

    cdef object entry_of(self, index, type as_type):
        cdef Block keep
        cdef Frame frame = dereference(self.log).frame(index, keep)
        if frame.is_gap():
            return None
        return entry_object(index, frame.term, frame.payload, <PyTypeObject*> as_type)

    def entry_locked(self, ReentrantLock lock not None, index, type as_type not None):
        """The same while `lock` is held, as by `run_locked`."""
        lock.take()
        try:
            return self.entry_of(index, as_type)
        finally:
            lock.give_back()

    def scan(self, first, end):
        """Batches of about 256 KiB over [first, end), which lies in the log."""
        while first < end:
            batch = self.read(first, end, SCAN_BYTES)
            first = batch.span.end
            yield batch

    def truncate(self, after):
        """Drop every entry above `after`: the tail ends there and a new one starts (C6)."""
        cdef uint64_t last = after
        with nogil:
            dereference(self.log).truncate(last)

    def trim(self, before):
        """Delete whole segments below `before`."""
        cdef uint64_t index = before
        with nogil:
            dereference(self.log).trim(index)

    def reset(self, entry):
        """Begin anew, empty, right after `entry` (C24); durable with the next sync."""
        cdef CEntryId after
        after.term, after.index = entry
        with nogil:
            dereference(self.log).reset(after)

    def release(self, indexes, policy):
        """Release entries: `policy` says when they may be deleted. IndexError.

        An array("Q") is taken as it is."""
        is_array = isinstance(indexes, _array) and indexes.typecode == "Q"
        cdef Block block = hold_buffer(indexes if is_array else _array("Q", indexes))
        cdef CRelease which = <CRelease> <int> _Release(policy)
        with nogil:
            dereference(self.log).release(index_span(block), which)

    def segment_stats(self, limits):
        """A copycat.types.SegmentStats for each segment, oldest first, the tail last."""
        cdef CLimits upto = limits_of(limits)
        cdef vector[CStats] stats
        cdef CStats row
        with nogil:
            stats = dereference(self.log).segment_stats(upto)
        return [_SegmentStats(row.id, row.version, row.first_index, row.last_index, row.bytes,
                              row.entries, row.released, row.removable_minor,
                              row.removable_major, row.sealed) for row in stats]

    def rewrite(self, groups, limits, *, major):
        """Freeze what is to be deleted of each group of neighbouring segments. ValueError."""
        cdef Rewrite rewrite = Rewrite.__new__(Rewrite)
        cdef vector[vector[uint64_t]] ids = number_lists(groups)
        cdef CLimits upto = limits_of(limits)
        cdef cbool is_major = major
        with nogil:
            rewrite.work = dereference(self.log).rewrite(ids, upto, is_major)
        return rewrite

    def install(self, rewrite):
        """Swap in what `rewrite` wrote; durable with the next sync. InvariantError before run."""
        cdef shared_ptr[CRewrite] work = (<Rewrite?> rewrite).work
        cdef CResult done
        with nogil:
            done = dereference(self.log).install(dereference(work))
        return _CompactionResult(done.segments_before, done.segments_after, done.bytes_before,
                                 done.bytes_after, done.entries_dropped, done.is_cut_short)

    def mark_idle(self):
        """Write a mark with what is durable, if the last mark says less."""
        dereference(self.log).mark_idle()

    def has_room(self, nbytes, *, entries=1, in_new_segment=False):
        """True when `nbytes` of frames could be appended now without a DiskFullError (F12)."""
        return dereference(self.log).has_room(nbytes, entries, in_new_segment)

    def wants_spare(self):
        """True when the next segment should be prepared."""
        return dereference(self.log).wants_spare()

    def prepare_spare(self):
        """Allocate and zero-fill a segment ahead; any thread. DiskFullError, DiskError."""
        with nogil:
            dereference(self.log).prepare_spare()

    def has_obsolete_files(self):
        """True while files wait to be removed that the durable manifest names no more."""
        return dereference(self.log).has_obsolete_files()

    def remove_obsolete_files(self):
        """Remove a few of them; any thread. DiskError: that one stays until the next open."""
        with nogil:
            dereference(self.log).remove_obsolete_files()

    def close(self):
        """Sync, write the close mark (C7), release the lock. A second close does nothing."""
        with nogil:
            dereference(self.log).close()


def open_log(env, directory, *, max_segment_size, max_entries_per_segment, read_only=False,
             min_free_space=0, mapped=False, compress=False):
    """The log in `directory`, recovered; a new one when there is none.

    CorruptLogError (F2, F3), FormatVersionError and DirectoryInUseError change nothing on
    disk. With read_only nothing at all is changed; FileNotFoundError when there is no log.
    Sealed segments are read with pread, so that a bad sector is a DiskError (F14); through a map
    when `mapped`, where a bad sector is a signal that ends the process. Segments that a
    rewrite makes are packed in LZ4 blocks when `compress`, where that saves an eighth or more.
    """
    cdef CLogOptions options
    cdef NativeLog opened = NativeLog.__new__(NativeLog)
    cdef shared_ptr[CEnv] on = (<Env?> env).env
    cdef shared_ptr[const string] where = shared_text(directory)
    options.max_segment_size = max_segment_size
    options.max_entries = max_entries_per_segment
    options.min_free_space = min_free_space
    options.read_only = read_only
    options.mapped = mapped
    options.compress = compress
    with nogil:
        opened.log.reset(new CLog(on, dereference(where), options))
    return opened

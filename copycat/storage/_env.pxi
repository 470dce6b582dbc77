# A part of _native.pyx: the file system, real and in memory.

@cython.final
cdef class FileSync:
    """One sync in flight; `run` may be called in any thread, once."""

    cdef unique_ptr[Work] work

    def __init__(self):
        raise TypeError("a FileSync comes from File.begin_sync")

    def run(self):
        """Make durable what was written before the begin. DiskError."""
        with nogil:
            dereference(self.work).run()


@cython.final
cdef class File:
    """One open file of an Env: writes at offsets. The log's own files never come out here."""

    cdef shared_ptr[File_] file

    def __init__(self):
        raise TypeError("a File comes from Env.open or Env.create")

    @staticmethod
    cdef File wrap(shared_ptr[File_] opened):
        cdef File file = File.__new__(File)
        file.file = opened
        return file

    def size(self):
        """In bytes."""
        return dereference(self.file).size()

    def allocate(self, length):
        """Reserve blocks for the first `length` bytes. DiskFullError."""
        dereference(self.file).allocate(length)

    def zero_fill(self, offset, length):
        """Background zeros: one later write over them is allowed."""
        dereference(self.file).zero_fill(offset, length)

    def write(self, offset, data):
        """All of `data` at `offset`, or DiskError, DiskFullError."""
        cdef Block block = hold_buffer(data)
        dereference(self.file).pwrite(offset, block.bytes)

    def read(self, offset, size):
        """Up to `size` bytes; fewer at the end of the file only."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
        cdef uint8_t* into = <uint8_t*> PyBytes_AS_STRING(data)
        return data[:dereference(self.file).pread(offset, MutableView(into, size))]

    def begin_sync(self):
        """The first half of a sync: fixes which writes it covers."""
        cdef FileSync ticket = FileSync.__new__(FileSync)
        ticket.work = move(dereference(self.file).begin_sync())
        return ticket

    def sync(self):
        """Both halves of a sync at once."""
        self.begin_sync().run()

    def map(self):
        """The whole file, read-only, as a memoryview that keeps the mapping alive."""
        return memoryview(Mapping_.wrap(dereference(self.file).map()))


@cython.final
cdef class Mapping_:
    cdef Block block

    @staticmethod
    cdef Mapping_ wrap(Block block):
        cdef Mapping_ mapping = Mapping_.__new__(Mapping_)
        mapping.block = block
        return mapping

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        cdef const uint8_t* data = self.block.bytes.data()
        PyBuffer_FillInfo(buffer, self, <void*> (data if data != NULL else &NOTHING),
                          <Py_ssize_t> self.block.bytes.size(), 1, flags)


@cython.final
cdef class Lock:
    """An exclusive lock; `close` releases it, and so does the end of the object."""

    cdef unique_ptr[CLock] lock

    def __init__(self):
        raise TypeError("a Lock comes from Env.lock")

    def close(self):
        """Release the lock. A second close does nothing."""
        self.lock.reset()


cdef class Env:
    """The real file system: the only system calls."""

    cdef shared_ptr[CEnv] env
    cdef object __weakref__

    def __cinit__(self):
        self.env = make_posix_env()

    def inside(self, directory):
        """The same, with `directory` held open: a path that leads into it is one of that very
        directory, also when it is renamed or another one takes its name. FileNotFoundError."""
        cdef shared_ptr[CEnv] directory_env = dereference(self.env).inside(text_of(directory))
        if directory_env.get() == NULL:
            return self
        cdef Env out = Env.__new__(Env)
        out.env = directory_env
        return out

    def open(self, path, *, write=False):
        """An existing file. FileNotFoundError, DiskError."""
        cdef Access access = Access.write if write else Access.read
        return File.wrap(dereference(self.env).open(text_of(path), access))

    def create(self, path):
        """A new file; its name is durable after sync_directory. DiskError when it exists."""
        return File.wrap(dereference(self.env).create(text_of(path)))

    def exists(self, path):
        """True for a file or a directory."""
        return dereference(self.env).exists(text_of(path))

    def list(self, path):
        """Names in a directory, sorted."""
        return dereference(self.env).list(text_of(path))

    def make_directory(self, path):
        """With its missing parents, each synced into its parent."""
        cdef shared_ptr[const string] where = shared_text(path)
        with nogil:
            dereference(self.env).make_directory(dereference(where))

    def sync_directory(self, path):
        """Make creations, renames and removals in it durable. SyncUnsupportedError."""
        cdef shared_ptr[const string] where = shared_text(path)
        with nogil:
            dereference(self.env).sync_directory(dereference(where))

    def rename(self, source, target):
        """Within one directory; durable after sync_directory."""
        dereference(self.env).rename(text_of(source), text_of(target))

    def read_file(self, path):
        """The whole file. FileNotFoundError, DiskError."""
        cdef Bytes data = dereference(self.env).read_file(text_of(path))
        return as_bytes(View(data.data(), data.size()))

    def replace_file(self, path, data):
        """Write a temporary file, sync it, rename it, sync the directory: old file or new one."""
        cdef shared_ptr[const string] where = shared_text(path)
        cdef Block block = hold_buffer(data)
        with nogil:
            dereference(self.env).replace_file(dereference(where), block.bytes)

    def remove(self, path):
        """Remove a file and sync the directory. FileNotFoundError, DiskError."""
        dereference(self.env).remove(text_of(path))

    def free_space(self, path):
        """Bytes that a process of this user may still write on the disk of `path`. DiskError."""
        return dereference(self.env).free_space(text_of(path))

    def lock(self, path):
        """Lock the file `path`, made when missing. DirectoryInUseError names the holder."""
        cdef Lock lock = Lock.__new__(Lock)
        lock.lock = move(dereference(self.env).lock(text_of(path)))
        return lock


cdef class Seen_(Env):
    """What can be seen of a FaultEnv's disk from outside."""

    cdef shared_ptr[CFaultEnv] fault

    cdef void use(self, shared_ptr[CFaultEnv] fault) noexcept:
        self.fault = fault
        self.env = static_pointer_cast[CEnv, CFaultEnv](fault)

    def size(self, path):
        """Bytes of a file."""
        return dereference(self.fault).size(text_of(path))

    @property
    def operations(self):
        """How many mutating operations so far, syncs included."""
        return dereference(self.fault).operations()

    @property
    def operations_left(self):
        """What is left of `stop_after`; 2**64 - 1 without one."""
        return dereference(self.fault).operations_left()

    @property
    def unsynced(self):
        """How many changes no sync made durable: of directories, of sizes, and writes."""
        return dereference(self.fault).unsynced()

    @property
    def digest(self):
        """Of all names and bytes: two disks with equal digests recover alike."""
        return dereference(self.fault).digest()


cdef class FaultEnv(Seen_):
    """A disk in memory with its page cache apart; see csrc/fault_env.hpp."""

    def __cinit__(self, seed=0):
        self.use(make_fault_env(seed))

    def crash(self, seed, *, garbage=False):
        """Power loss: what was not synced is kept, dropped or torn by `seed`; handles die.

        What did not arrive reads as zeros; with `garbage`, some of it as noise.
        """
        dereference(self.fault).crash(seed, garbage)

    def crash_keeping(self, kept_bits):
        """Power loss that keeps the nth unsynced change if bit n of `kept_bits` is set, else not.

        Bit 63 stands for all from there on.
        """
        dereference(self.fault).crash_keeping(kept_bits)

    def crash_process(self):
        """SIGKILL: the page cache survives; handles, locks and tickets die."""
        dereference(self.fault).crash_process()

    def fail(self, operation, nth, error):
        """The nth `operation` from now (1 is the next) raises `error`, an errno or SHORT."""
        dereference(self.fault).fail(operation, nth, error)

    def hold_sync(self, nth):
        """The nth sync of a file from now (1 is the next) hangs until `let_go`."""
        dereference(self.fault).hold_sync(nth)

    def await_blocked(self):
        """Return once that sync hangs."""
        with nogil:
            dereference(self.fault).await_blocked()

    def let_go(self):
        """Let that sync continue, and block no other."""
        dereference(self.fault).let_go()

    def corrupt(self, path, offset, mask):
        """Xor one byte, in the cache and on the platter."""
        dereference(self.fault).corrupt(path, offset, mask)

    def stop_after(self, operations):
        """`operations` more mutating ones happen, then every one is a DiskError until crash."""
        dereference(self.fault).stop_after(operations)

    def set_free_space(self, nbytes):
        """What the log is told when it asks for free space."""
        dereference(self.fault).set_free_space(nbytes)

    def clone(self):
        """A deep copy with handles and locks to nobody: crash one state in many ways."""
        cdef FaultEnv copy = FaultEnv.__new__(FaultEnv)
        copy.use(dereference(self.fault).clone())
        return copy

# What the extension uses of csrc/: every declaration throws through the one funnel.
from cpython.object cimport PyObject, PyTypeObject
from cpython.pythread cimport PyLockStatus, PyThread_type_lock
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "pythread.h":
    ctypedef long long PY_TIMEOUT_T
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, PY_TIMEOUT_T, int) nogil


cdef extern from "_raise.hpp" namespace "copycat":
    void raise_error()


cdef extern from "_memory.hpp" namespace "copycat":
    cdef cppclass Refusals:
        uint64_t possible
        uint64_t impossible
    Refusals c_refusals "copycat::refusals"
    void c_watch_allocations "copycat::watch_allocations"()


cdef extern from "types.hpp" namespace "copycat":
    cdef cppclass View:
        View()
        View(const uint8_t*, size_t)
        const uint8_t* data() const
        size_t size() const
    cdef cppclass MutableView:
        MutableView()
        MutableView(uint8_t*, size_t)
    cdef cppclass Bytes:
        uint8_t* data()
        size_t size()
    cdef cppclass Uuid:
        uint8_t* data()
    cdef cppclass Block:
        View bytes
    cdef cppclass CSpan "copycat::Span":
        uint64_t term
        uint64_t first
        uint64_t end


cdef extern from "lz4_block.hpp" namespace "copycat":
    size_t c_lz4_compress "copycat::lz4_compress"(View, MutableView) nogil
    cbool c_lz4_decompress "copycat::lz4_decompress"(View, MutableView) nogil


cdef extern from "crc32c.hpp" namespace "copycat":
    uint32_t c_crc32c "copycat::crc32c"(View, uint32_t) nogil
    cbool c_is_hardware "copycat::crc32c_is_hardware"()
    cbool c_force_table "copycat::crc32c_force_table"(cbool)


cdef extern from "format.hpp" namespace "copycat":
    cdef cppclass GapBody:
        uint64_t end
        uint64_t valid_from


cdef extern from "frame.hpp" namespace "copycat":
    cdef cppclass Frame:
        uint32_t crc
        uint64_t index
        uint64_t term
        uint64_t time_ms
        uint8_t kind
        View payload
        size_t total() const
        cbool is_gap() const
        uint64_t end() const
        GapBody gap() const
    cdef cppclass Frames:
        Block block
        CSpan span
        cbool may_have_gaps
        size_t nbytes() const
    cdef cppclass Cursor:
        size_t offset
    cdef cppclass EncodeItem:
        pass
    cdef cppclass Mark:
        uint32_t size
        uint64_t first_index
        uint64_t durable_upto
        uint32_t frames_hash
        uint8_t flags
    Frame frame_at(View, size_t) nogil
    cbool verify_frames(View, const CSpan&) except +raise_error nogil
    Cursor frame_of(const Frames&, uint64_t, Cursor*) except +raise_error
    Frames c_encode_gap "copycat::encode_gap"(const CSpan&, uint64_t, uint64_t) \
        except +raise_error
    Frames c_slice "copycat::slice"(const Frames&, uint64_t, uint64_t, Cursor*) \
        except +raise_error
    void c_check_commands "copycat::check_commands"(View, uint64_t, uint64_t) \
        except +raise_error nogil
    Frames c_encode_batch "copycat::encode_batch"(
        uint64_t, uint64_t, uint64_t, const vector[EncodeItem]&) except +raise_error nogil
    uint32_t c_frames_hash "copycat::frames_hash"(View)
    void c_encode_mark "copycat::encode_mark"(const Mark&, const Uuid&, uint64_t, MutableView) \
        except +raise_error


cdef extern from "_objects.hpp" namespace "copycat":
    cdef cppclass ItemBuffers:
        ItemBuffers()
        void take(object) except +raise_error
        const vector[EncodeItem]& items() nogil
        size_t nbytes()
    Block hold_buffer(object) except +raise_error
    string text_of(object) except +raise_error
    shared_ptr[const string] shared_text(object) except +raise_error
    object run_list(const Frames&, uint64_t, uint64_t, Cursor*, object) except +raise_error
    object span_object(const CSpan&, object) except +raise_error
    object as_bytes(View) except +raise_error
    object entry_object(object, uint64_t, View, PyTypeObject*) except +raise_error
    object body_object(object, size_t) except +raise_error


cdef extern from "env.hpp" namespace "copycat":
    cdef cppclass Work:
        void run() except +raise_error nogil
    cdef cppclass File_ "copycat::File":
        uint64_t size() except +raise_error
        void allocate(uint64_t) except +raise_error nogil
        void zero_fill(uint64_t, uint64_t) except +raise_error nogil
        void pwrite(uint64_t, View) except +raise_error nogil
        size_t pread(uint64_t, MutableView) except +raise_error nogil
        unique_ptr[Work] begin_sync() except +raise_error
        Block map() except +raise_error
    cdef cppclass CLock "copycat::Lock":
        pass
    cdef enum class Access:
        read
        write
    cdef cppclass CEnv "copycat::Env":
        shared_ptr[CEnv] inside(const string&) except +raise_error
        shared_ptr[File_] open(string, Access) except +raise_error
        shared_ptr[File_] create(string) except +raise_error
        cbool exists(string) except +raise_error
        vector[string] list(string) except +raise_error
        void make_directory(const string&) except +raise_error nogil
        void rename(string, string) except +raise_error nogil
        void sync_directory(const string&) except +raise_error nogil
        unique_ptr[CLock] lock(string) except +raise_error
        Bytes read_file(string) except +raise_error nogil
        void replace_file(const string&, View) except +raise_error nogil
        void remove(string) except +raise_error nogil
        uint64_t free_space(string) except +raise_error
    shared_ptr[CEnv] make_posix_env() except +raise_error


cdef extern from "fault_env.hpp" namespace "copycat":
    cdef cppclass CFaultEnv "copycat::FaultEnv"(CEnv):
        void crash(uint64_t, cbool) except +raise_error nogil
        uint64_t unsynced() except +raise_error
        void crash_keeping(uint64_t) except +raise_error nogil
        void crash_process() except +raise_error nogil
        void fail(string, uint64_t, string) except +raise_error
        void hold_sync(uint64_t) except +raise_error
        void await_blocked() nogil
        void let_go()
        void corrupt(string, uint64_t, uint8_t) except +raise_error
        uint64_t size(string) except +raise_error
        uint64_t operations() except +raise_error
        void stop_after(uint64_t) except +raise_error
        uint64_t operations_left() except +raise_error
        uint64_t digest() except +raise_error nogil
        void set_free_space(uint64_t) except +raise_error
        shared_ptr[CFaultEnv] clone() except +raise_error nogil
    shared_ptr[CFaultEnv] make_fault_env(uint64_t) except +raise_error


cdef extern from "hard_state.hpp" namespace "copycat":
    cdef cppclass MemberBytes "std::array<std::uint8_t, 16>":
        uint8_t* data()
    cdef cppclass HardValue:
        uint64_t generation
        uint64_t term
        MemberBytes voted_for
    cdef cppclass SaveWork "copycat::HardState::Ticket"(Work):
        pass
    cdef cppclass CHardState "copycat::HardState":
        CHardState(shared_ptr[CEnv], string, cbool) except +raise_error
        const HardValue& value()
        uint32_t repaired()
        shared_ptr[SaveWork] begin_save(uint64_t, const MemberBytes&) except +raise_error
        void end_save(const SaveWork&) except +raise_error
        void rewrite() except +raise_error nogil

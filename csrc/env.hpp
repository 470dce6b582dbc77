// The file system, as few verbs as the log needs: the only system calls of copycat.
// Every failure is an IoError with path and errno. Nothing here retries a failed sync (F9).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "errors.hpp"
#include "types.hpp"

namespace copycat {

// Work that another thread may do: the second half of a sync or of a save.
class Work {
public:
    virtual ~Work() = default;
    virtual void run() = 0;
};

// One open file. Writes go to offsets, never at a cursor. Always held by shared_ptr: a sync
// under way keeps its file open.
class File : public std::enable_shared_from_this<File> {
public:
    virtual ~File() = default;
    virtual const std::string& path() const = 0;
    // Env::rename gave it this one.
    virtual void renamed(std::string&& path) = 0;
    virtual std::uint64_t size() const = 0;
    // What it takes on the disk, where that is not its size.
    virtual std::uint64_t stored_size() const { return size(); }
    // Reserves blocks for [0, length) and makes the file at least that long.
    virtual void allocate(std::uint64_t length) = 0;
    // Writes zeros. Its own verb: one later write over them is no overwriting.
    virtual void zero_fill(std::uint64_t offset, std::uint64_t length) = 0;
    virtual void pwrite(std::uint64_t offset, View bytes) = 0;
    // The file ends at `length` from now on, when it was longer: what lay behind counts no more.
    virtual void shorten(std::uint64_t length) = 0;
    // How many bytes were read: less than asked only at the end of the file.
    virtual std::size_t pread(std::uint64_t offset, MutableView into) = 0;
    // The same into memory of its own, which is not zeroed first.
    Block read(std::uint64_t offset, std::size_t size);
    // The first half of fdatasync: notes which writes it covers. Its run() makes exactly
    // those (and the file's size) durable, in any thread.
    virtual std::unique_ptr<Work> begin_sync() = 0;
    virtual void fdatasync() { begin_sync()->run(); }
    virtual void fsync() = 0;
    // Says that its pages in the cache will not be needed soon; what is not synced stays.
    virtual void drop_cache() {}
    // Writes out what was written in [from, to), so that a later sync finds little left to do at
    // once. A hint: nothing is durable by it.
    virtual void write_out(std::uint64_t from, std::uint64_t to) {
        static_cast<void>(from), static_cast<void>(to);
    }
    // The whole file, read-only. The block keeps the mapping alive, and the file must
    // not be truncated.
    virtual Block map() = 0;
};

// An open directory: its sync needs nothing that the system could lack.
class Directory {
public:
    virtual ~Directory() = default;
    virtual void sync() = 0;
};

// An exclusive lock on a path, released by its destructor (or by the process's death).
class Lock {
public:
    virtual ~Lock() = default;
};

enum class Access { read, write };

class Env {
public:
    virtual ~Env() = default;
    // The same, with `directory` held open: a path that leads into it is one of that very
    // directory, also when it is renamed or another one takes its name. Null where no directory
    // can be renamed. NotFoundError.
    virtual std::shared_ptr<Env> inside(const std::string& directory) {
        static_cast<void>(directory);
        return nullptr;
    }
    // An existing file. NotFoundError.
    virtual std::shared_ptr<File> open(const std::string& path, Access access) = 0;
    // A new file, mode 0600; IoError(EEXIST). Its name is durable after sync_directory.
    virtual std::shared_ptr<File> create(const std::string& path) = 0;
    virtual bool exists(const std::string& path) = 0;
    // Names in a directory, sorted, without "." and "..".
    virtual std::vector<std::string> list(const std::string& directory) = 0;
    // With its missing parents, mode 0700, each synced into its parent. Exists already: nothing.
    virtual void make_directory(const std::string& path) = 0;
    // Within one directory.
    virtual void rename(const std::string& from, const std::string& to) = 0;
    virtual void unlink(const std::string& path) = 0;
    virtual void sync_directory(const std::string& path) = 0;
    virtual std::shared_ptr<Directory> open_directory(const std::string& path) = 0;
    // What a file takes on the disk, what is allocated ahead included. NotFoundError.
    virtual std::uint64_t disk_usage(const std::string& path) = 0;
    virtual std::uint64_t free_space(const std::string& path) = 0;
    // Does nothing for so long: the disk is somebody else's meanwhile.
    virtual void pause(std::chrono::nanoseconds) {}
    virtual std::unique_ptr<Lock> lock(const std::string& path) = 0;
    // Uuids of segments: random bytes in production, seeded in FaultEnv.
    virtual void random(MutableView into) = 0;

    // The whole file; at most `limit` bytes, above it IoError(EFBIG).
    Bytes read_file(const std::string& path, std::uint64_t limit = std::uint64_t{1} << 32);
    // Whole-file replace: write `path`.new aside, fsync, rename over `path`; the directory is
    // synced unless told otherwise. A reader sees the old file or the new one, never a mix.
    void replace_file(const std::string& path, View bytes, bool sync_parent = true);
    // Removes a file that nothing needs, if it is there and can be removed now.
    void discard(const std::string& path) noexcept;
    // unlink, then sync of the directory.
    void remove(const std::string& path);
};

// Whether every page of a mapping can be read, without the signal that touching a bad one brings
// (F14); unknown on a kernel older than 5.14. Each page is in memory afterwards.
enum class Readable { yes, no, unknown };
Readable probe(View mapped);

// Its number: after a fork the child has another, and the files are its parent's.
std::int64_t this_process();

// The directory part of a path ("." when there is none).
std::string parent_of(const std::string& path);
std::string join(const std::string& directory, const std::string& name);

// The real file system.
std::shared_ptr<Env> make_posix_env();

}  // namespace copycat

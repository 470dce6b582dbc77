// The file system: the only system calls of the log. Every failure is an IoError with path and
// errno. A sync that failed is never repeated (F9).
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

// An open file. Each read and write names its offset. Owned by shared_ptr, so that a sync in
// another thread keeps the file open.
class File : public std::enable_shared_from_this<File> {
public:
    virtual ~File() = default;
    virtual const std::string& path() const = 0;
    // The file was renamed to `path`.
    virtual void renamed(std::string&& path) = 0;
    virtual std::uint64_t size() const = 0;
    // Bytes that the file takes on the disk; another number than size() for a packed segment.
    virtual std::uint64_t stored_size() const { return size(); }
    // Reserves blocks for [0, length) and makes the file at least that long.
    virtual void allocate(std::uint64_t length) = 0;
    // Writes zeros. To write data over these zeros once does not count as overwriting.
    virtual void zero_fill(std::uint64_t offset, std::uint64_t length) = 0;
    virtual void pwrite(std::uint64_t offset, View bytes) = 0;
    // Cuts the file to `length` bytes, if it is longer.
    virtual void shorten(std::uint64_t length) = 0;
    // Returns how many bytes were read: fewer than asked for only at the end of the file.
    virtual std::size_t pread(std::uint64_t offset, MutableView into) = 0;
    // Reads into new memory, which is not filled with zeros first.
    Block read(std::uint64_t offset, std::size_t size);
    // The first half of fdatasync: notes which writes there were so far. run() of the result, in
    // any thread, makes exactly those writes and the file's size durable.
    virtual std::unique_ptr<Work> begin_sync() = 0;
    virtual void fdatasync() { begin_sync()->run(); }
    virtual void fsync() = 0;
    // A hint that the cached pages of this file are not needed soon. Unsynced pages stay.
    virtual void drop_cache() {}
    // A hint to write the bytes [from, to) back to the disk now, so that a later sync has little
    // to do. It makes nothing durable.
    virtual void write_out(std::uint64_t from, std::uint64_t to) {
        static_cast<void>(from), static_cast<void>(to);
    }
    // Maps the whole file read-only. The block keeps the mapping alive; the file must not be
    // shortened meanwhile.
    virtual Block map() = 0;
};

// An open directory: to sync it needs no further file descriptor or memory.
class Directory {
public:
    virtual ~Directory() = default;
    virtual void sync() = 0;
};

// An exclusive lock on a path, released by the destructor or by the end of the process.
class Lock {
public:
    virtual ~Lock() = default;
};

enum class Access { read, write };

class Env {
public:
    virtual ~Env() = default;
    // An Env that keeps `directory` open: paths that begin with it are looked up in that
    // directory, even if it is renamed, or another directory gets its name. Null for an Env whose
    // directories cannot be renamed. NotFoundError.
    virtual std::shared_ptr<Env> inside(const std::string& directory) {
        static_cast<void>(directory);
        return nullptr;
    }
    // Opens an existing file. NotFoundError.
    virtual std::shared_ptr<File> open(const std::string& path, Access access) = 0;
    // Creates a file with mode 0600; IoError(EEXIST). Its name is durable after sync_directory.
    virtual std::shared_ptr<File> create(const std::string& path) = 0;
    virtual bool exists(const std::string& path) = 0;
    // Names in a directory, sorted, without "." and "..".
    virtual std::vector<std::string> list(const std::string& directory) = 0;
    // Creates a directory with mode 0700, and its missing parents, and makes their names durable.
    // Does nothing if it exists.
    virtual void make_directory(const std::string& path) = 0;
    // Both paths are in one directory.
    virtual void rename(const std::string& from, const std::string& to) = 0;
    virtual void unlink(const std::string& path) = 0;
    virtual void sync_directory(const std::string& path) = 0;
    virtual std::shared_ptr<Directory> open_directory(const std::string& path) = 0;
    // Bytes that a file takes on the disk, with space that is allocated ahead. NotFoundError.
    virtual std::uint64_t disk_usage(const std::string& path) = 0;
    virtual std::uint64_t free_space(const std::string& path) = 0;
    // Sleeps, so that others can use the disk.
    virtual void pause(std::chrono::nanoseconds) {}
    virtual std::unique_ptr<Lock> lock(const std::string& path) = 0;
    // Fills `into` with random bytes, for uuids of segments; from a seed in FaultEnv.
    virtual void random(MutableView into) = 0;

    // Reads a whole file. IoError(EFBIG) if it is larger than `limit` bytes.
    Bytes read_file(const std::string& path, std::uint64_t limit = std::uint64_t{1} << 32);
    // Replaces a file as a whole: writes and syncs `path`.new, renames it to `path`, and syncs the
    // directory if `sync_parent`. A reader sees the old file or the new one, never a mix.
    void replace_file(const std::string& path, View bytes, bool sync_parent = true);
    // Deletes a file that nothing needs, if it exists; an error is ignored.
    void discard(const std::string& path) noexcept;
    // Deletes a file, and syncs its directory.
    void remove(const std::string& path);
};

// Whether every page of a mapping can be read. The check itself causes no signal at a bad page
// (F14), and brings each page into memory. Unknown on a kernel older than 5.14.
enum class Readable { yes, no, unknown };
Readable probe(View mapped);

// The id of this process, by which a child of a fork knows that the files are its parent's.
std::int64_t this_process();

// The directory part of a path ("." when there is none).
std::string parent_of(const std::string& path);
std::string join(const std::string& directory, const std::string& name);

// The real file system.
std::shared_ptr<Env> make_posix_env();

}  // namespace copycat

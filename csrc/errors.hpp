// Every exception that the log throws: callers match types and fields, never texts.
//
// Error
// ├── IoError                 a system call failed (F9, F10): path, offset, number (errno)
// │   ├── DiskFullError       ENOSPC, EDQUOT, EFBIG (F12)
// │   ├── ResourceError       EMFILE, ENFILE, ENOMEM, ENOLCK: only this call failed (F29)
// │   ├── NotFoundError       ENOENT
// │   └── SyncRefusedError    this file system does not sync directories (F7)
// ├── CorruptError            bytes that were durable do not fit their checksum (F2)
// ├── FormatError             another format version (F7)
// ├── InUseError              another process has locked the directory: pid
// ├── PoisonedError           an earlier write or sync failed
// ├── ProtocolError           received bytes break the frame format (F20)
// ├── TooLargeError           an entry above its limit: size, limit
// └── InvariantError          an invariant of the log is broken: a bug in the log
// std::bad_alloc means the same as a ResourceError. std::invalid_argument and std::out_of_range
// are mistakes of the caller, and become ValueError and IndexError in Python.
#pragma once

#include <cerrno>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

namespace copycat {

struct Error : std::runtime_error {
    explicit Error(const std::string& message, std::string path_ = {}, std::int64_t offset_ = -1,
                   std::uint64_t index_ = 0)
        : std::runtime_error(message), path(std::move(path_)), offset(offset_), index(index_) {}
    std::string path;
    std::int64_t offset;
    std::uint64_t index;
};

struct IoError : Error {
    IoError(const std::string& operation_, const std::string& path_, int number_,
            std::int64_t offset_ = -1)
        : Error(operation_ + " " + path_ + (offset_ < 0 ? "" : " at " + std::to_string(offset_)) +
                    ": " + std::generic_category().message(number_),
                path_, offset_),
          operation(operation_),
          number(number_) {}
    // An operation that the log itself refused, with its reason.
    IoError(const Error& error, const std::string& operation_, int number_)
        : Error(error), operation(operation_), number(number_) {}
    std::string operation;
    int number;
};
struct DiskFullError : IoError {
    using IoError::IoError;
};
struct ResourceError : IoError {
    using IoError::IoError;
};
struct NotFoundError : IoError {
    using IoError::IoError;
};
struct SyncRefusedError : IoError {
    using IoError::IoError;
};

// Throws the error of a failed write or sync: DiskFullError, or else a plain IoError and never a
// ResourceError, since it is not known what is on the disk now (F9, F10).
[[noreturn]] inline void throw_write_error(const std::string& operation, const std::string& path,
                                           int number, std::int64_t offset = -1) {
    if (number == ENOSPC || number == EDQUOT || number == EFBIG)
        throw DiskFullError(operation, path, number, offset);
    throw IoError(operation, path, number, offset);
}

// Throws the subtype of IoError that fits `number`.
[[noreturn]] inline void throw_io(const std::string& operation, const std::string& path,
                                  int number, std::int64_t offset = -1) {
    if (number == ENOSPC || number == EDQUOT || number == EFBIG)
        throw DiskFullError(operation, path, number, offset);
    if (number == EMFILE || number == ENFILE || number == ENOMEM || number == ENOLCK)
        throw ResourceError(operation, path, number, offset);
    if (number == ENOENT) throw NotFoundError(operation, path, number, offset);
    throw IoError(operation, path, number, offset);
}

struct CorruptError : Error {
    using Error::Error;
};
struct FormatError : Error {
    using Error::Error;
};
struct InUseError : Error {
    InUseError(const std::string& message, const std::string& path_, std::int64_t pid_)
        : Error(message, path_), pid(pid_) {}
    std::int64_t pid;
};
struct PoisonedError : Error {
    PoisonedError(const std::string& message, const std::string& path_, int number_)
        : Error(message, path_), number(number_) {}
    int number;
};
struct ProtocolError : Error {
    ProtocolError(const std::string& message, std::int64_t offset_, std::uint64_t index_ = 0)
        : Error(message, {}, offset_, index_) {}
};
struct TooLargeError : Error {
    TooLargeError(const std::string& message, std::uint64_t size_, std::uint64_t limit_)
        : Error(message), size(size_), limit(limit_) {}
    std::uint64_t size;
    std::uint64_t limit;
};
struct InvariantError : Error {
    using Error::Error;
};

// Calls `verb`. If it fails for lack of disk space, descriptors or memory, calls `undo`, which
// restores the earlier state, and throws the error.
template <typename Verb, typename Undo>
auto or_undo(Verb verb, Undo undo) {
    try {
        return verb();
    } catch (const DiskFullError&) {
        undo();
        throw;
    } catch (const ResourceError&) {
        undo();
        throw;
    } catch (const std::bad_alloc&) {
        undo();
        throw;
    }
}

// Asserts an invariant, in release builds too.
inline void require(bool law, const char* message) {
    if (!law) [[unlikely]]
        throw InvariantError(message);
}

}  // namespace copycat

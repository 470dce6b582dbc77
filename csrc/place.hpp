// Opens files by path, and closes their descriptors.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "errors.hpp"

namespace copycat {

class Descriptor {
public:
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    // An error of close() is ignored: what matters was synced before.
    ~Descriptor() {
        if (number_ >= 0) ::close(number_);
    }
    int get() const { return number_; }
    void set(int number) { number_ = number; }

private:
    int number_;
};

// The arguments of openat(): a name, and the directory that the name is relative to.
struct Place {
    const std::string& path;  // for messages
    int directory;
    const char* name;
};

// Opens a file with a descriptor above those of the standard streams. If a process has closed its
// standard streams, a file could else get such a number, and prints would be written into the
// file. Returns -1 with errno, as open().
inline int open_above_streams(const Place& place, int flags) {
    const int number = ::openat(place.directory, place.name, flags | O_CLOEXEC, 0600);
    if (number < 0 || number > STDERR_FILENO) return number;
    const int above = ::fcntl(number, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    const int error = errno;
    ::close(number);
    errno = error;
    return above;
}

inline int open_or_throw(const char* operation, const Place& place, int flags) {
    for (;;) {
        const int number = open_above_streams(place, flags);
        if (number >= 0) return number;
        if (errno != EINTR) throw_io(operation, place.path, errno);
    }
}

}  // namespace copycat

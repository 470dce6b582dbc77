// The lock of a directory: a file in it, which contains the id of the process that has the lock.
#pragma once

#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>

#include "env.hpp"
#include "place.hpp"

namespace copycat {

// flock() locks an open file: a second lock in the same process is refused as well, and the kernel
// releases the lock when the process ends.
class PosixLock final : public Lock {
public:
    explicit PosixLock(const Place& place)
        : descriptor_(open_or_throw("lock", place, O_RDWR | O_CREAT)) {
        const std::string& path = place.path;
        while (::flock(descriptor_.get(), LOCK_EX | LOCK_NB) != 0)
            if (errno != EINTR) refuse(path, errno);
        while (::ftruncate(descriptor_.get(), 0) != 0)
            if (errno != EINTR) throw_io("lock", path, errno);
        write_pid(path, std::to_string(::getpid()) + "\n");
    }

private:
    void write_pid(const std::string& path, const std::string& pid) const {
        for (std::size_t done = 0; done < pid.size();) {
            const ssize_t written = ::pwrite(descriptor_.get(), pid.data() + done,
                                             pid.size() - done, static_cast<off_t>(done));
            if (written > 0)
                done += static_cast<std::size_t>(written);
            else if (written == 0 || errno != EINTR)
                throw_io("lock", path, written < 0 ? errno : EIO);
        }
    }

    [[noreturn]] void refuse(const std::string& path, int number) const {
        if (number != EWOULDBLOCK) throw_io("lock", path, number);
        char text[32] = {};
        std::size_t size = 0;
        for (ssize_t got = 1; got != 0 && size + 1 < sizeof text;) {
            got = ::pread(descriptor_.get(), text + size, sizeof text - 1 - size,
                          static_cast<off_t>(size));
            if (got < 0 && errno != EINTR) break;
            size += static_cast<std::size_t>(std::max<ssize_t>(got, 0));
        }
        const long long pid = std::atoll(text);
        throw InUseError(
            "directory " + parent_of(path) + " is in use" +
                (pid > 0 ? " by process " + std::to_string(pid) : std::string(" by a process")),
            parent_of(path), pid);
    }

    Descriptor descriptor_;
};

}  // namespace copycat

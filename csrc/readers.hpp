// The open files of a log whose level is DISK: sealed segments are read with pread, so that a
// media error is an errno (F14). A few are kept open, since a log may have more than a process.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "env.hpp"

namespace copycat {

// Loop thread.
class Readers {
public:
    explicit Readers(std::shared_ptr<Env> env) : env_(std::move(env)) {}

    File& of(const std::string& path) {
        const auto found = std::find_if(files_.begin(), files_.end(), [&](const auto& file) {
            return file != nullptr && file->path() == path;
        });
        if (found != files_.end()) return **found;
        std::shared_ptr<File>& place = files_[next_++ % files_.size()];
        place = env_->open(path, Access::read);
        return *place;
    }
    // Before it is unlinked: an open file keeps its blocks.
    void forget(const std::string& path) {
        for (std::shared_ptr<File>& file : files_)
            if (file != nullptr && file->path() == path) file.reset();
    }

private:
    std::shared_ptr<Env> env_;
    std::array<std::shared_ptr<File>, 16> files_;
    std::size_t next_ = 0;
};

}  // namespace copycat

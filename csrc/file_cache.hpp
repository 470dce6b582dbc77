// The open files of sealed segments that are read with pread: all of them at level DISK, so that a
// media error is an errno (F14), and packed ones at every level. Only a few are open at a time,
// since a log may have more files than a process may open.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "env.hpp"
#include "manifest.hpp"
#include "packed.hpp"
#include "read_ahead.hpp"

namespace copycat {

// Opens files when they are first read. For the thread of the event loop only.
class FileCache {
public:
    explicit FileCache(std::shared_ptr<Env> env) : env_(std::move(env)) {}

    // Reads from `path`, the file of the sealed segment `row`. Returns fewer bytes than `size`
    // only at the end of the file.
    Block read(const Row& row, const std::string& path, std::uint64_t offset, std::size_t size) {
        Open& open = of(row, path);
        return open.read_ahead.at(*open.file, offset, size, row.end_offset);
    }
    // Closes all files, when the log is closed.
    void forget_all() noexcept { files_ = {}; }
    // Closes the file of `row`, before it is deleted: an open file would keep its disk space.
    void forget(const Row& row) {
        for (Open& open : files_)
            if (open.is_of(row)) open = Open{};
    }

private:
    struct Open {
        std::uint64_t id = 0;
        std::uint32_t version = 0;
        std::shared_ptr<File> file;
        ReadAhead read_ahead;
        bool is_of(const Row& row) const {
            return file != nullptr && id == row.id && version == row.version;
        }
    };

    Open& of(const Row& row, const std::string& path) {
        if (files_[last_].is_of(row)) return files_[last_];
        const auto position = std::find_if(files_.begin(), files_.end(),
                                           [&](const Open& open) { return open.is_of(row); });
        if (position != files_.end()) {
            last_ = static_cast<std::size_t>(position - files_.begin());
            return *position;
        }
        auto file = open_segment(*env_, row, path);
        last_ = next_++ % files_.size();
        files_[last_] = Open{row.id, row.version, std::move(file), ReadAhead{}};
        return files_[last_];
    }

    std::shared_ptr<Env> env_;
    std::array<Open, 16> files_;
    std::size_t last_ = 0;
    std::size_t next_ = 0;
};

}  // namespace copycat

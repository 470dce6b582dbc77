// Segment files that are made in advance, by any thread: allocated, and filled with zeros if
// appends are small. A file is named by its uuid until it becomes a segment (C8, F12).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "env.hpp"
#include "format.hpp"

namespace copycat {

struct Spare {
    std::shared_ptr<File> file;
    std::string path;
    Uuid uuid{};
    std::uint64_t size = 0;
};

class PreallocatedFiles {
public:
    PreallocatedFiles(std::shared_ptr<Env> env, std::string directory, std::uint64_t size,
                      std::uint64_t min_free_space);

    std::size_t ready() const;
    // Whether there are enough prepared files or free space for `count` files of `size` bytes
    // (F12).
    bool has_room(std::uint64_t count, std::uint64_t size) const;
    // Whether the free space still suffices for a manifest and index files (F12).
    bool has_slack() const;
    // Prepares and syncs one more file, in any thread. A file of zeros makes small durable writes
    // faster, since the file system converts no blocks then, and large writes slower. After a
    // DiskFullError no file is left.
    void prepare(bool zero_filled);
    // Returns a prepared file if one is large enough, else one that is allocated now.
    Spare take(std::uint64_t size);
    // Creates the first file that an open writes to. It may use min_free_space, so that a log
    // opens on a full disk too. With `zero_filled` it is not larger than `size`.
    Spare take_first(std::uint64_t size, bool zero_filled);
    // Takes an unused file back for the next take(); after close() the file is deleted.
    void give_back(Spare&& spare) noexcept;
    // Deletes all prepared files; from now on prepare() does nothing.
    void close();

private:
    Spare create(std::uint64_t size, std::uint64_t left_free, bool zero_filled, bool synced);
    bool is_closed() const;
    void discard(const Spare& spare) noexcept;

    std::shared_ptr<Env> env_;
    std::string directory_;
    std::uint64_t size_;
    std::uint64_t min_free_space_;
    mutable std::mutex mutex_;
    std::vector<Spare> ready_;
    bool is_closed_ = false;
};

}  // namespace copycat

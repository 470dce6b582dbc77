// Segment files prepared ahead by any thread: allocated, zero-filled where appends are small.
// Named by uuid until a manifest row makes one part of the log (C8, F12).
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
    // Whether `count` files of `size` bytes could be taken now: ready ones, or free space (F12).
    bool has_room(std::uint64_t count, std::uint64_t size) const;
    // Whether what is always left free for them still holds a manifest and index files (F12).
    bool has_slack() const;
    // Any thread: one more synced file. Zeros make small durable writes cheaper (the file system
    // has nothing to convert) and bulk writes dearer. DiskFullError leaves nothing behind.
    void prepare(bool zero_filled);
    // A prepared file if one is big enough, else one made now (allocated, not filled with zeros).
    Spare take(std::uint64_t size);
    // The file that opening a log goes on in. It may use min_free_space, which is kept for this:
    // a log on a full disk still opens. Zero-filled when asked, and not larger than `size` then.
    Spare take_first(std::uint64_t size, bool zero_filled);
    // Takes an unused file back for the next take(); after close() the file is deleted.
    void give_back(Spare&& spare) noexcept;
    // Unlinks all that are ready; from now on prepare() does nothing.
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

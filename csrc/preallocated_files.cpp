#include "preallocated_files.hpp"

#include <algorithm>

#include "manifest.hpp"

namespace copycat {
namespace {

// Left free beyond a new segment, so that the manifest and index files still fit (F12).
constexpr std::uint64_t slack_bytes = std::uint64_t{1} << 20;

}  // namespace

PreallocatedFiles::PreallocatedFiles(std::shared_ptr<Env> env, std::string directory,
                                     std::uint64_t size, std::uint64_t min_free_space)
    : env_(std::move(env)),
      directory_(std::move(directory)),
      size_(size),
      min_free_space_(std::max(min_free_space, slack_bytes)) {}

std::size_t PreallocatedFiles::ready() const {
    const std::lock_guard lock(mutex_);
    return ready_.size();
}

bool PreallocatedFiles::has_room(std::uint64_t count, std::uint64_t size) const {
    {
        const std::lock_guard lock(mutex_);
        for (const Spare& spare : ready_)
            if (count > 0 && spare.size >= size) --count;
    }
    if (count == 0) return true;
    const std::uint64_t free = env_->free_space(directory_);
    return free >= min_free_space_ && (free - min_free_space_) / std::max(size, size_) >= count;
}

bool PreallocatedFiles::has_slack() const { return env_->free_space(directory_) >= slack_bytes; }

Spare PreallocatedFiles::create(std::uint64_t size, std::uint64_t left_free, bool zero_filled,
                                bool synced) {
    const std::uint64_t free = env_->free_space(directory_);
    if (left_free == min_free_space_ && free >= size && free < size + left_free)
        throw DiskFullError(
            Error(directory_ + ": " + std::to_string(free) + " bytes are free, and another " +
                      std::to_string(size) + " would leave less than min_free_space (" +
                      std::to_string(left_free) + "): free some, or lower that setting",
                  directory_),
            "allocate", ENOSPC);
    if (free < left_free || free - left_free < size)
        throw DiskFullError(
            "allocate " + std::to_string(size) + " bytes (" + std::to_string(free) + " free) in",
            directory_, ENOSPC);
    Spare spare;
    env_->random(MutableView(spare.uuid));
    spare.path = spare_path(directory_, spare.uuid);
    spare.size = size;
    spare.file = env_->create(spare.path);
    or_undo(
        [&] {
            spare.file->allocate(size);
            if (zero_filled) spare.file->zero_fill(0, size);
            if (synced) spare.file->fsync();
        },
        [&] { discard(spare); });
    return spare;
}

void PreallocatedFiles::prepare(bool zero_filled) {
    if (is_closed()) return;
    Spare spare = create(size_, min_free_space_, zero_filled, true);
    give_back(std::move(spare));
}

bool PreallocatedFiles::is_closed() const {
    const std::lock_guard lock(mutex_);
    return is_closed_;
}

// Another process may have opened the directory meanwhile, and deleted the file (F4).
void PreallocatedFiles::discard(const Spare& spare) noexcept { env_->discard(spare.path); }

Spare PreallocatedFiles::take(std::uint64_t size) {
    {
        const std::lock_guard lock(mutex_);
        if (!ready_.empty() && ready_.back().size >= size) {
            Spare spare = std::move(ready_.back());
            ready_.pop_back();
            return spare;
        }
    }
    return create(std::max(size, size_), min_free_space_, false, false);
}

Spare PreallocatedFiles::take_first(std::uint64_t size, bool zero_filled) {
    return create(size, slack_bytes, zero_filled, false);
}

void PreallocatedFiles::give_back(Spare&& spare) noexcept {
    const std::lock_guard lock(mutex_);
    if (is_closed_) return discard(spare);
    try {
        ready_.push_back(std::move(spare));
    } catch (const std::bad_alloc&) {
        discard(spare);
    }
}

void PreallocatedFiles::close() {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
    for (const Spare& spare : ready_) discard(spare);
    ready_.clear();
}

}  // namespace copycat

// Files that no manifest names any more, and sealed files that are longer than their content. To
// free the disk space of a segment takes milliseconds, so a sync only adds the files here, and
// another thread deletes or shortens them later.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "env.hpp"
#include "log_status.hpp"
#include "throttle.hpp"

namespace copycat {

// The length that a file with `end` bytes of content may be cut to: whole blocks are kept.
constexpr std::uint64_t whole_blocks(std::uint64_t end) { return (end + 4095) / 4096 * 4096; }

// For any thread. Files that are not deleted here, the next recovery deletes (F4).
class ObsoleteFiles {
public:
    ObsoleteFiles(std::shared_ptr<Env> env, std::shared_ptr<const LogStatus> log_status)
        : env_(std::move(env)), log_status_(std::move(log_status)) {}

    // A file, and how many of its bytes the log needs; with 0 the file is deleted.
    struct Excess {
        std::string path;
        std::uint64_t length = 0;
    };

    // Adds files once a durable manifest does not need them any more, or not their end. If memory
    // is short, they are left to the next recovery.
    void add(std::vector<Excess>&& excess) noexcept {
        const std::lock_guard lock(mutex_);
        try {
            for (Excess& each : excess) {
                excess_.push_back(std::move(each));
                left_.fetch_add(1, std::memory_order_release);
            }
        } catch (const std::bad_alloc&) {
        }
    }
    // Whether files are left, those included that are being deleted.
    bool any() const { return left_.load(std::memory_order_acquire) != 0; }
    // Deletes or shortens up to `most` files, the oldest first. A file for which that fails is not
    // tried again.
    void remove(std::size_t most) {
        const std::lock_guard removing(removing_);
        RewriteThrottle throttle(*env_, *log_status_);
        for (std::size_t i = 0; i < most; ++i) {
            const Excess excess = next();
            if (excess.path.empty()) return;
            const Removed removed{*this};
            if (env_->exists(excess.path)) give_back(excess);
            throttle.moved();
        }
    }

private:
    struct Removed {
        ObsoleteFiles& obsolete_files;
        ~Removed() { obsolete_files.left_.fetch_sub(1, std::memory_order_release); }
    };

    Excess next() {
        const std::lock_guard lock(mutex_);
        if (excess_.empty()) return {};
        Excess excess = std::move(excess_.front());
        excess_.pop_front();
        return excess;
    }
    void give_back(const Excess& excess) {
        if (excess.length == 0)
            env_->unlink(excess.path);
        else
            env_->open(excess.path, Access::write)->shorten(excess.length);
    }

    std::shared_ptr<Env> env_;
    std::shared_ptr<const LogStatus> log_status_;
    std::mutex removing_;  // locked while a file is deleted; mutex_ is not
    std::mutex mutex_;
    std::deque<Excess> excess_;
    std::atomic<std::size_t> left_{0};
};

}  // namespace copycat

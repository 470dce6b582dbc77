// Files that no manifest names any more, and sealed files that are longer than their content. To
// free a segment's space takes milliseconds, for which no sync should wait: a sync adds the files
// here, and another thread removes them later.
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

// What a file may be cut to that holds `end` bytes: no block that holds some is touched.
constexpr std::uint64_t whole_blocks(std::uint64_t end) { return (end + 4095) / 4096 * 4096; }

// Any thread. What is never removed here, the next recovery removes (F4).
class ObsoleteFiles {
public:
    ObsoleteFiles(std::shared_ptr<Env> env, std::shared_ptr<const LogStatus> log_status)
        : env_(std::move(env)), log_status_(std::move(log_status)) {}

    // A file, and how many of its bytes the log needs; with 0 the file is deleted.
    struct Excess {
        std::string path;
        std::uint64_t length = 0;
    };

    // The manifest that names them no more, or as no longer than that, is durable. Without memory
    // for their names they are the next recovery's.
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
    // Those that are being removed count.
    bool any() const { return left_.load(std::memory_order_acquire) != 0; }
    // Removes up to `most` files, the oldest first; one that cannot be removed is not tried again.
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
    std::mutex removing_;  // held while one is unlinked; mutex_ never is
    std::mutex mutex_;
    std::deque<Excess> excess_;
    std::atomic<std::size_t> left_{0};
};

}  // namespace copycat

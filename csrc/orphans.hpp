// Files that no manifest names any more. To unlink one of a segment's size takes milliseconds,
// which no sync should wait for: a sync hands them over here, and whoever has the time goes on.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "env.hpp"
#include "health.hpp"
#include "pace.hpp"

namespace copycat {

// Any thread. What is never removed here, the next recovery removes (F4).
class Orphans {
public:
    Orphans(std::shared_ptr<Env> env, std::shared_ptr<const Health> health)
        : env_(std::move(env)), health_(std::move(health)) {}

    // The manifest that names them no more is durable.
    void add(const std::vector<std::string>& paths) {
        const std::lock_guard lock(mutex_);
        paths_.insert(paths_.end(), paths.begin(), paths.end());
        left_.fetch_add(paths.size(), std::memory_order_release);
    }
    // Those that are being removed count.
    bool any() const { return left_.load(std::memory_order_acquire) != 0; }
    // Up to so many of them, the oldest first. One that cannot be removed is given up.
    void remove(std::size_t most) {
        const std::lock_guard removing(removing_);
        Pace pace(*env_, *health_);
        for (std::size_t i = 0; i < most; ++i) {
            const std::string path = next();
            if (path.empty()) return;
            const Removed removed{*this};
            if (env_->exists(path)) env_->unlink(path);
            pace.moved();
        }
    }

private:
    struct Removed {
        Orphans& orphans;
        ~Removed() { orphans.left_.fetch_sub(1, std::memory_order_release); }
    };

    std::string next() {
        const std::lock_guard lock(mutex_);
        if (paths_.empty()) return {};
        std::string path = std::move(paths_.front());
        paths_.pop_front();
        return path;
    }

    std::shared_ptr<Env> env_;
    std::shared_ptr<const Health> health_;
    std::mutex removing_;  // held while one is unlinked; mutex_ never is
    std::mutex mutex_;
    std::deque<std::string> paths_;
    std::atomic<std::size_t> left_{0};
};

}  // namespace copycat

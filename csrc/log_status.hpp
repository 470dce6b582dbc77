// Whether a log is poisoned, and whether it is in use: shared by all of its threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "errors.hpp"

namespace copycat {

// The first failed write or sync poisons a log: every later call throws PoisonedError (F9, F10).
class LogStatus {
public:
    void check() const {
        if (!is_poisoned()) return;
        const std::lock_guard lock(mutex_);
        throw *cause_;
    }
    void poison(const IoError& cause) {
        const std::lock_guard lock(mutex_);
        if (cause_) return;
        cause_.emplace(std::string("the log was closed by an earlier failure: ") + cause.what(),
                       cause.path, cause.number);
        is_poisoned_.store(true, std::memory_order_release);
    }
    bool is_poisoned() const { return is_poisoned_.load(std::memory_order_acquire); }
    // How many syncs have ended. A rewrite sees by this number that the log is in use.
    std::uint64_t syncs() const { return syncs_.load(std::memory_order_relaxed); }
    void synced() { syncs_.fetch_add(1, std::memory_order_relaxed); }

private:
    mutable std::mutex mutex_;
    std::atomic<bool> is_poisoned_{false};
    std::atomic<std::uint64_t> syncs_{0};
    std::optional<PoisonedError> cause_;
};

}  // namespace copycat

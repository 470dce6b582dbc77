// Slows a rewrite down while the log is in use.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "env.hpp"
#include "log_status.hpp"

namespace copycat {

// While the log is synced, a rewrite pauses twice as long as each of its pieces took, so that few
// syncs meet a read or a write. A rewrite does not pause while the log is not in use. One thread.
class RewriteThrottle {
public:
    RewriteThrottle(Env& env, const LogStatus& log_status)
        : env_(env), log_status_(log_status), syncs_(log_status.syncs()) {}

    // Called after each piece that was read or written.
    void moved() {
        const std::uint64_t syncs = log_status_.syncs();
        if (syncs != syncs_) env_.pause(std::min(2 * (Clock::now() - since_), longest));
        syncs_ = syncs;
        since_ = Clock::now();
    }

private:
    using Clock = std::chrono::steady_clock;
    static constexpr Clock::duration longest = std::chrono::milliseconds(20);

    Env& env_;
    const LogStatus& log_status_;
    std::uint64_t syncs_;
    Clock::time_point since_ = Clock::now();
};

}  // namespace copycat

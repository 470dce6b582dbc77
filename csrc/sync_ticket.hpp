// One sync in flight (C8), and the log's health: what the loop thread and a worker share.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "env.hpp"
#include "segment.hpp"

namespace copycat {

// The first failed write or sync ends a log: every later verb says so (F9, F10).
class Health {
public:
    void check() const;
    void poison(const IoError& cause);
    bool is_poisoned() const { return is_poisoned_.load(std::memory_order_acquire); }
    // How many syncs ended: who else writes to the disk sees by it that the log is in use.
    std::uint64_t syncs() const { return syncs_.load(std::memory_order_relaxed); }
    void synced() { syncs_.fetch_add(1, std::memory_order_relaxed); }

private:
    mutable std::mutex mutex_;
    std::atomic<bool> is_poisoned_{false};
    std::atomic<std::uint64_t> syncs_{0};
    std::optional<PoisonedError> cause_;
};

// Begun and ended by the loop thread, run by any: data of older segments, then their index
// files, then the manifest if the shape changed, then the tail's data.
class SyncTicket : public Work {
public:
    struct Seal {
        std::shared_ptr<Segment> segment;
        std::string path;
        Row row;
        std::shared_ptr<SlotIndex> index;
    };

    SyncTicket(std::shared_ptr<Env> env, std::string directory, std::shared_ptr<Health> health)
        : env_(std::move(env)), directory_(std::move(directory)), health_(std::move(health)) {}

    void run() override;
    bool is_done() const {
        const std::lock_guard lock(mutex_);
        return is_done_;
    }

private:
    friend class SegmentedLog;
    void work();

    std::shared_ptr<Env> env_;
    std::string directory_;
    std::shared_ptr<Health> health_;
    mutable std::mutex mutex_;
    bool is_done_ = false;

    std::vector<std::unique_ptr<Work>> older_;
    std::vector<Seal> seals_;
    std::unique_ptr<Work> tail_;
    std::optional<Bytes> manifest_;
    std::vector<std::string> doomed_;
    std::uint64_t end_index_ = 0;  // lowered by a truncation meanwhile (C6)
};

}  // namespace copycat

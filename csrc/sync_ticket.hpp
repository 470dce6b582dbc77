// One sync in flight (C8): what the loop thread and a worker share.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "env.hpp"
#include "log_status.hpp"
#include "obsolete_files.hpp"
#include "segment.hpp"

namespace copycat {

// Begun and ended by the loop thread, run by any: data of older segments, then their index
// files, then the tail's data, then the manifest if the layout changed. The files that it names no
// more are obsolete from then on. A ResourceError changes nothing: the run may follow
// again.
//
// close() does not wait for a run that hangs in a disk when the log was poisoned meanwhile, or
// nobody could close anything any more. So a run has a share in the lock of the directory until it
// is over: whatever it still writes then, it writes as the only owner. Who opens the directory
// before that, in this process or in another, is told that it is in use. Poisoned, a run ends
// after the system call that it hangs in; one that begins after the log is gone does nothing.
class SyncTicket : public Work {
public:
    struct Seal {
        std::shared_ptr<Segment> segment;
        std::string path;
        Row row;
        std::shared_ptr<SlotIndex> index;
    };

    SyncTicket(std::shared_ptr<Env> env, std::string directory, std::shared_ptr<Directory> handle,
               std::weak_ptr<Lock> lock, std::shared_ptr<LogStatus> log_status,
               std::shared_ptr<ObsoleteFiles> obsolete_files)
        : env_(std::move(env)),
          directory_(std::move(directory)),
          handle_(std::move(handle)),
          lock_(std::move(lock)),
          log_status_(std::move(log_status)),
          obsolete_files_(std::move(obsolete_files)) {}

    // IoError, which poisons the log unless it is a ResourceError; PoisonedError;
    // std::invalid_argument when it is closed.
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
    std::shared_ptr<Directory> handle_;
    std::weak_ptr<Lock> lock_;
    std::shared_ptr<LogStatus> log_status_;
    std::shared_ptr<ObsoleteFiles> obsolete_files_;
    mutable std::mutex mutex_;
    bool is_done_ = false;

    std::vector<std::unique_ptr<Work>> older_;
    std::vector<Seal> seals_;
    std::unique_ptr<Work> tail_;
    std::optional<Bytes> manifest_;
    Aside aside_;
    std::vector<ObsoleteFiles::Excess> excess_;
    std::vector<std::shared_ptr<Segment>> unsynced_;
    std::uint64_t end_index_ = 0;  // lowered by a truncation meanwhile (C6)
};

}  // namespace copycat

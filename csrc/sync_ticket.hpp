// One sync of a log (C8): begun and ended by the thread of the event loop, run by any thread.
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

// run() syncs the data of sealed segments, writes their index files, syncs the data of the tail,
// and replaces the manifest if the layout changed. Files that the new manifest does not name are
// obsolete then. After a ResourceError run() may be called again.
//
// When the log is poisoned, close() does not wait for a run that hangs in a system call, since the
// wait might never end. So a run shares the lock of the directory until its end: until then nobody
// else can open the directory, in this process or another one, and so nobody else writes to it. A
// run of a poisoned log ends after that system call; a run that begins after the log was deleted
// does nothing.
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
    // std::invalid_argument if the log is closed.
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
    TempManifest temp_manifest_;
    std::vector<ObsoleteFiles::Excess> excess_;
    std::vector<std::shared_ptr<Segment>> unsynced_;
    std::uint64_t end_index_ = 0;  // a truncation during the sync lowers it (C6)
};

}  // namespace copycat

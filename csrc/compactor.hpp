// Rewrites sealed segments without the entries that were released (C3). The log's thread begins
// and installs a rewrite; any thread runs it, which changes only files of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "env.hpp"
#include "liveness.hpp"
#include "manifest.hpp"
#include "segment.hpp"
#include "sync_ticket.hpp"

namespace copycat {

class RewriteThrottle;

class Rewrite : public Work {
public:
    // Neighbouring segments that become one segment.
    struct Group {
        std::vector<std::shared_ptr<Segment>> segments;  // of the log: run() does not use them
        std::vector<Row> rows;    // of these segments, when the rewrite began
        std::vector<Bits> drops;  // per segment, a bit for each record to delete
        // Per segment, verified; empty after run().
        std::vector<std::shared_ptr<SlotIndex>> indexes;
        Row row;                           // of the new segment
        std::shared_ptr<SlotIndex> index;  // after run()
        std::uint64_t bytes_before = 0;    // plain
        std::uint64_t stored_before = 0;   // on the disk
        std::uint64_t bytes_after = 0;     // on the disk, after run()
        std::uint64_t entries_dropped = 0;
        bool is_installed = false;
        std::string missing;  // a source file that a trim or a reset deleted before the run
    };

    Rewrite(std::shared_ptr<Env> env, std::string directory, std::vector<Group> groups,
            std::uint64_t horizon, bool compress, std::shared_ptr<const LogStatus> log_status,
            const void* log)
        : env_(std::move(env)),
          directory_(std::move(directory)),
          groups_(std::move(groups)),
          horizon_(horizon),
          compress_(compress),
          log_status_(std::move(log_status)),
          log_(log) {}
    ~Rewrite() override;
    Rewrite(const Rewrite&) = delete;
    Rewrite& operator=(const Rewrite&) = delete;

    // Writes and verifies the new files. CorruptError when a source is damaged; IoError. After an
    // error none of the new files is left. Does nothing after abandon(), or in a child of a fork.
    void run() override;
    // Ends a run soon, and deletes the new files that are not installed. Any thread.
    void abandon();
    // abandon(), and waits for the end of a run, so that no file of this rewrite is left: another
    // log of this directory may use the same file names again, in this process too.
    void end() noexcept;
    // Whether this rewrite may still create or delete the file of `row`.
    bool may_write(const Row& row);
    bool is_done() const { return is_done_.load(std::memory_order_acquire); }

private:
    friend class SegmentedLog;
    void write(Group& group);
    bool write_as(Group& group, bool packed);
    template <typename Each>
    void each_source(Group& group, Each each);
    void verify(Group& group, const SlotView& written, RewriteThrottle& throttle);
    void discard(const Group& group) noexcept;
    void discard_all() noexcept;
    // False in a child of a fork: the files are the parent's, and perhaps a thread of the parent
    // has locked the mutex, which no thread of the child would unlock.
    bool is_ours() const { return this_process() == process_; }

    std::shared_ptr<Env> env_;
    std::string directory_;
    std::vector<Group> groups_;
    std::uint64_t horizon_;
    bool compress_;
    std::shared_ptr<const LogStatus> log_status_;
    const void* log_;
    const std::int64_t process_ = this_process();
    std::mutex mutex_;  // locked during run()
    std::atomic<bool> is_done_{false};
    std::atomic<bool> is_abandoned_{false};
};

// copycat.storage.interface.CompactionResult
struct CompactionResult {
    std::uint64_t segments_before = 0;
    std::uint64_t segments_after = 0;
    std::uint64_t bytes_before = 0;
    std::uint64_t bytes_after = 0;
    std::uint64_t entries_dropped = 0;
    bool is_cut_short = false;
};

// copycat.types.SegmentStats
struct SegmentStats {
    std::uint64_t id = 0;
    std::uint32_t version = 0;
    std::uint64_t first_index = 0;
    std::uint64_t last_index = 0;
    std::uint64_t bytes = 0;
    std::uint64_t entries = 0;
    std::uint64_t released = 0;
    std::uint64_t removable_minor = 0;
    std::uint64_t removable_major = 0;
    bool sealed = false;
};

}  // namespace copycat

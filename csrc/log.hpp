// SegmentedLog: append, sync, read, roll, truncate, trim over one directory (C5 to C8).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compactor.hpp"
#include "env.hpp"
#include "frame.hpp"
#include "manifest.hpp"
#include "obsolete_files.hpp"
#include "preallocated_files.hpp"
#include "recovery.hpp"
#include "segment.hpp"
#include "sync_ticket.hpp"
#include "tail.hpp"

namespace copycat {

struct SegmentInfo {
    std::uint64_t id = 0;
    std::uint32_t version = 0;
    std::uint64_t first_index = 0;
    std::uint64_t last_index = 0;
    std::uint64_t bytes = 0;
    bool sealed = false;
};

// The log of one directory. All calls come from one thread, except prepare_spare(),
// has_obsolete_files(), remove_obsolete_files() and SyncTicket::run(), which any thread may call.
// After a failed write or sync every call but close() throws PoisonedError. A call that throws
// ResourceError or std::bad_alloc changed nothing, and may be repeated.
class SegmentedLog {
public:
    SegmentedLog(std::shared_ptr<Env> env, const std::string& directory,
                 const LogOptions& options);

    std::uint64_t first_index() const;
    std::uint64_t last_index() const { return tail_->last_index(); }
    // The entry just below first_index; {0, 0} in a log that begins with entry 1.
    EntryId before() const;
    EntryId last_entry() const { return {tail_->last_term(), tail_->last_index()}; }
    std::uint64_t durable_index() const { return durable_index_; }
    // The largest valid_from of any gap (C22); 0 in a log without gaps.
    std::uint64_t valid_from() const;
    std::vector<TermRun> term_runs() const;
    // How many calls of truncate() and reset() removed entries since the log was opened.
    std::uint64_t truncations() const { return truncations_; }
    // The number of entries; gaps do not count.
    std::uint64_t entries();
    const RecoveryReport& report() const { return report_; }
    std::uint64_t rebuilt_indexes() const;
    // Bytes of the log's records and headers, without space that is allocated ahead.
    std::uint64_t size() const;
    // Bytes that all files of the log take on the disk, with index files, manifests, preallocated
    // and obsolete files, and space that is allocated ahead. IoError.
    std::uint64_t disk_usage() const;
    // Bytes that this process may still write on the log's disk. IoError.
    std::uint64_t free_space() const { return env_->free_space(directory_); }
    std::vector<SegmentInfo> segments() const;
    // One IndexSlot for each record of that segment; those of the tail are a copy.
    // std::out_of_range when there is no such segment.
    Block slots(std::uint64_t segment_id);

    // std::invalid_argument unless the batch continues the log with a term not below the last
    // one. If memory runs out during a batch that is larger than a segment, a first part of the
    // batch may be in the log.
    void append(const Frames& batch);
    std::shared_ptr<SyncTicket> begin_sync();
    // The ticket that was begun and not yet ended, or null: a caller that was interrupted
    // continues with it.
    const std::shared_ptr<SyncTicket>& in_flight() const { return in_flight_; }
    std::uint64_t end_sync(const SyncTicket& ticket);
    // True while a roll, a truncation or a trim is not durable yet; the next sync makes it so.
    bool wants_sync() const { return is_layout_new_; }

    Frames read(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes);
    // The frame of entry `index`, or of the gap that contains `index`.
    Frame frame(std::uint64_t index, Block& keep);

    void truncate(std::uint64_t after);
    void trim(std::uint64_t before);
    // C24, I12: deletes all entries; the empty log then begins right after `entry`.
    void reset(const EntryId& entry);
    void mark_idle();

    // Marks these entries as released. Ignores indexes below the log or in a gap;
    // std::out_of_range for one above the log, and then none is marked.
    void release(std::span<const std::uint64_t> indexes, Release policy);
    // Oldest first, the tail last.
    std::vector<SegmentStats> segment_stats(const Limits& limits);
    // Begins to rewrite groups of segments; decides for all groups at once which entries are
    // deleted. std::invalid_argument unless each group names neighbouring segments that are
    // sealed and durable, and no unfinished rewrite writes a file of the same name.
    std::shared_ptr<Rewrite> rewrite(const std::vector<std::vector<std::uint64_t>>& groups,
                                     const Limits& limits, bool major);
    // Replaces the old segments by those that a finished rewrite wrote; durable with the next
    // sync. A group whose segments changed since is dropped, and if only a part of it was trimmed,
    // no group behind it is installed. After an error nothing has changed.
    CompactionResult install(Rewrite& rewrite);

    // Whether a batch of `bytes` bytes and `entries` entries could be appended now without a
    // DiskFullError; in_new: to a new segment, as after a truncation. Fast while the tail has
    // room.
    bool has_room(std::uint64_t bytes, std::uint64_t entries, bool in_new);
    bool wants_spare();
    void prepare_spare();
    // Files that the durable manifest does not name any more; remove_obsolete_files() deletes a
    // few of them (any thread). An IoError does not harm the log; the next open deletes that file.
    bool has_obsolete_files() const;
    void remove_obsolete_files();

    void close();
    bool is_closed() const { return is_closed_; }

private:
    void check_open() const;
    void check_writable() const;
    void check_index(std::uint64_t index) const;
    Segment& segment_of(std::uint64_t index);
    std::uint64_t term_at(std::uint64_t index);

    template <typename Verb>
    void poisoning(Verb verb);
    void write(const Frames& batch);
    void append_rolling(const Frames& batch);
    std::vector<Frames> cut_to_segments(const Frames& batch) const;
    std::vector<std::unique_ptr<Tail>> begin_tails(const std::vector<Frames>& pieces);
    void append_pieces(const std::vector<Frames>& pieces,
                       std::vector<std::unique_ptr<Tail>> tails);
    void discard(const std::vector<std::unique_ptr<Tail>>& tails) noexcept;
    void replace_tail(std::unique_ptr<Tail>&& fresh);
    void begin_tail(const Row& row, const Spare& spare);
    void drop(const Segment& segment) noexcept;
    void mark_obsolete(const Row& row) noexcept;
    void mark_obsolete(std::string&& path) noexcept;
    void cut_last(std::uint64_t after, std::uint64_t end_offset);
    Limits capped(Limits limits) const;
    bool is_durable(const Segment& segment) const;
    Rewrite::Group group_of(std::span<const std::uint64_t> ids, const Limits& limits, bool major);
    bool is_current(const Rewrite::Group& group) const;
    std::shared_ptr<Segment> successor(const Rewrite::Group& group);
    void swap_in(Rewrite::Group& group, std::shared_ptr<Segment> fresh);
    // The next pending manifest; `file` is null if the disk has no room for it.
    struct PendingManifest {
        std::uint64_t generation = 0;
        std::string path;
        std::shared_ptr<File> file;
    };
    void prepare_temp_manifest();
    PendingManifest create_pending_manifest();
    void write_pending_manifest(const PendingManifest& pending);
    void sync_now();
    void cancel(SyncTicket& ticket) noexcept;
    bool is_sync_overdue() const { return is_layout_new_ && in_flight_ == nullptr; }
    Bytes encoded_manifest(std::uint64_t generation) const;
    void finish();

    std::shared_ptr<Env> env_;
    std::string directory_;
    LogOptions options_;
    std::shared_ptr<Lock> lock_;         // a sync that runs shares it
    std::shared_ptr<Directory> handle_;  // of the directory, for its syncs
    TempManifest temp_manifest_;         // for the next manifest
    std::shared_ptr<PreallocatedFiles> preallocated_files_;
    std::shared_ptr<LogStatus> log_status_ = std::make_shared<LogStatus>();
    std::shared_ptr<ObsoleteFiles> obsolete_files_;
    RecoveryReport report_;

    std::shared_ptr<FileCache> file_cache_;
    std::vector<std::shared_ptr<Segment>> segments_;  // sealed, oldest first
    std::unique_ptr<Tail> tail_;
    std::uint64_t next_id_ = 1;
    std::uint64_t generation_ = 0;
    std::uint64_t durable_index_ = 0;
    std::uint64_t truncations_ = 0;
    bool has_tail_index_ = false;

    std::atomic<bool> fills_preallocated_{true};
    bool is_tail_dirty_ = false;
    // The layout changed since the manifest was written: begin_sync() encodes the next one.
    bool is_layout_new_ = false;
    bool needs_pending_manifest_ = false;             // the same for the pending manifest
    std::uint64_t pending_ = 0;                       // generation of the pending manifest
    std::vector<std::shared_ptr<Segment>> unsynced_;  // sealed since the last ticket
    std::vector<std::shared_ptr<Segment>> loose_;     // sealed, with much allocated behind them
    std::vector<ObsoleteFiles::Excess> excess_;       // obsolete once the manifest is durable
    std::vector<std::string> lost_;  // torn bytes in lost+found, until a seal (F1)
    std::shared_ptr<SyncTicket> in_flight_;
    std::vector<std::weak_ptr<Rewrite>> rewrites_;
    bool is_closed_ = false;
};

}  // namespace copycat

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

// One thread calls it, but for prepare_spare(), has_obsolete_files(), remove_obsolete_files() and
// SyncTicket::run(). After a failed write or sync every verb but close() is a PoisonedError. A
// ResourceError or std::bad_alloc is of the call alone, which changed nothing: it may follow
// again.
class SegmentedLog {
public:
    SegmentedLog(std::shared_ptr<Env> env, const std::string& directory,
                 const LogOptions& options);

    std::uint64_t first_index() const;
    std::uint64_t last_index() const { return tail_->last_index(); }
    // The entry just below first_index; {0, 0} in a whole log.
    EntryId before() const;
    EntryId last_entry() const { return {tail_->last_term(), tail_->last_index()}; }
    std::uint64_t durable_index() const { return durable_index_; }
    // The largest valid_from of any gap (C22); 0 in a log without gaps.
    std::uint64_t valid_from() const;
    std::vector<TermRun> term_runs() const;
    // How often entries were taken off the end since it was opened.
    std::uint64_t truncations() const { return truncations_; }
    // How many, gaps left out.
    std::uint64_t entries();
    const RecoveryReport& report() const { return report_; }
    std::uint64_t rebuilt_indexes() const;
    // Bytes of the log's records and headers, without what is allocated ahead.
    std::uint64_t size() const;
    // What all files of the log take on the disk: index files, manifests, spares, what waits to be
    // removed and what is allocated ahead, too. IoError.
    std::uint64_t disk_usage() const;
    // Bytes that this process may still write on the disk that the log is on. IoError.
    std::uint64_t free_space() const { return env_->free_space(directory_); }
    std::vector<SegmentInfo> segments() const;
    // One IndexSlot a record of that segment; the tail's is a copy. std::out_of_range.
    Block slots(std::uint64_t segment_id);

    // std::invalid_argument unless it continues the log with a term not below the last one.
    // Where a batch of more than a segment runs out of memory, pieces of it may be in the log.
    void append(const Frames& batch);
    std::shared_ptr<SyncTicket> begin_sync();
    // The ticket that was begun and not ended, if any: whoever was interrupted goes on with it.
    const std::shared_ptr<SyncTicket>& in_flight() const { return in_flight_; }
    std::uint64_t end_sync(const SyncTicket& ticket);
    // A roll, a truncation or a trim is not on the disk yet: the next sync brings it there.
    bool wants_sync() const { return is_layout_new_; }

    Frames read(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes);
    // Or the gap that the index lies in.
    Frame frame(std::uint64_t index, Block& keep);

    void truncate(std::uint64_t after);
    void trim(std::uint64_t before);
    // C24, I12: the log begins anew, empty, right after `entry`.
    void reset(const EntryId& entry);
    void mark_idle();

    // Ignores what lies below the log or in a gap. std::out_of_range above it: nothing is done.
    void release(std::span<const std::uint64_t> indexes, Release policy);
    // Oldest first, the tail last.
    std::vector<SegmentStats> segment_stats(const Limits& limits);
    // Freezes what goes of all groups at once. std::invalid_argument unless each group
    // names neighbouring segments that are sealed and durable, and that no other rewrite that is
    // not over would write under the same name.
    std::shared_ptr<Rewrite> rewrite(const std::vector<std::vector<std::uint64_t>>& groups,
                                     const Limits& limits, bool major);
    // After its run: durable with the next sync. Groups that the log changed under are dropped,
    // and behind one that was trimmed in part nothing is installed. An error changes
    // nothing.
    CompactionResult install(Rewrite& rewrite);

    // Whether a batch of so many bytes and entries could be appended now without DiskFullError;
    // in_new: in a segment of its own, as after a truncation. Quick while the tail has the room.
    bool has_room(std::uint64_t bytes, std::uint64_t entries, bool in_new);
    bool wants_spare();
    void prepare_spare();
    // Files that a durable manifest names no more, and a few of them removed (any thread). After
    // an IoError the log is as good as before; that one stays until the next open.
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
    // The next pending manifest; without its file where the disk has no room for it.
    struct Note {
        std::uint64_t generation = 0;
        std::string path;
        std::shared_ptr<File> file;
    };
    void ready_aside();
    Note begin_note();
    void end_note(const Note& note);
    void sync_now();
    void cancel(SyncTicket& ticket) noexcept;
    bool is_sync_overdue() const { return is_layout_new_ && in_flight_ == nullptr; }
    Bytes encoded_manifest(std::uint64_t generation) const;
    void finish();

    std::shared_ptr<Env> env_;
    std::string directory_;
    LogOptions options_;
    std::shared_ptr<Lock> lock_;         // a sync that runs has a share in it
    std::shared_ptr<Directory> handle_;  // of the directory, for its syncs
    Aside aside_;                        // for the next sync of a new layout
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
    bool is_layout_new_ = false;                      // the manifest is behind
    bool wants_note_ = false;                         // the pending one is behind, too
    std::uint64_t pending_ = 0;                       // generation of the pending manifest
    std::vector<std::shared_ptr<Segment>> unsynced_;  // sealed since the last ticket
    std::vector<std::shared_ptr<Segment>> loose_;     // sealed, with much allocated behind them
    std::vector<ObsoleteFiles::Excess> excess_;       // obsolete once the manifest is durable
    std::vector<std::string> lost_;                   // in lost+found, until the next seal (F1)
    std::shared_ptr<SyncTicket> in_flight_;
    std::vector<std::weak_ptr<Rewrite>> rewrites_;
    bool is_closed_ = false;
};

}  // namespace copycat

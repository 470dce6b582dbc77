// How a SegmentedLog becomes durable: syncs, manifests, and pending manifests.
#include <algorithm>

#include "log.hpp"

namespace copycat {

Bytes SegmentedLog::encoded_manifest(std::uint64_t generation) const {
    Manifest manifest;
    manifest.generation = generation;
    manifest.next_id = next_id_;
    for (const auto& segment : segments_) manifest.rows.push_back(segment->row());
    manifest.rows.push_back(tail_->row());
    return encode_manifest(manifest);
}

std::shared_ptr<SyncTicket> SegmentedLog::begin_sync() {
    check_writable();
    require(in_flight_ == nullptr, "at most one sync is in flight");
    auto ticket = std::make_shared<SyncTicket>(env_, directory_, handle_, lock_, log_status_,
                                               obsolete_files_);
    for (const auto& segment : unsynced_) {
        if (segment->file() != nullptr) ticket->older_.push_back(segment->file()->begin_sync());
        ticket->seals_.push_back(
            {segment, segment->index_file(), segment->row(), segment->index()});
    }
    if (is_tail_dirty_) ticket->tail_ = tail_->file()->begin_sync();
    if (is_layout_new_) {
        ticket->manifest_ = encoded_manifest(++generation_);
        ticket->excess_.reserve(loose_.size() + excess_.size());
        for (const auto& segment : loose_)
            ticket->excess_.push_back({segment->path(), whole_blocks(segment->row().end_offset)});
        // Nothing fails from here on.
        for (ObsoleteFiles::Excess& each : excess_) ticket->excess_.push_back(std::move(each));
        excess_.clear();
        loose_.clear();
        ticket->temp_manifest_ = std::exchange(temp_manifest_, TempManifest{});
    }
    ticket->unsynced_ = std::exchange(unsynced_, {});
    is_tail_dirty_ = false;
    is_layout_new_ = false;
    ticket->end_index_ = last_index();
    in_flight_ = ticket;
    return ticket;
}

std::uint64_t SegmentedLog::end_sync(const SyncTicket& ticket) {
    check_writable();
    require(in_flight_.get() == &ticket, "a ticket is ended once, by the log that began it");
    require(ticket.is_done(), "a ticket is run before it is ended");
    durable_index_ = std::max(durable_index_, ticket.end_index_);
    for (const auto& seal : ticket.seals_) seal.segment->map_index();
    in_flight_.reset();
    if (pending_ != 0 && !is_layout_new_) {
        env_->discard(pending_path(directory_, pending_));
        pending_ = 0;
    }
    return durable_index_;
}

void SegmentedLog::sync_now() {
    const auto ticket = begin_sync();
    or_undo([&] { ticket->run(); }, [&] { cancel(*ticket); });
    end_sync(*ticket);
}

// The ticket was never run: the next ticket covers what this one would have made durable.
void SegmentedLog::cancel(SyncTicket& ticket) noexcept {
    in_flight_.reset();
    unsynced_ = std::move(ticket.unsynced_);
    excess_ = std::move(ticket.excess_);
    if (ticket.manifest_) temp_manifest_ = std::move(ticket.temp_manifest_);
    is_layout_new_ = is_layout_new_ || ticket.manifest_.has_value();
    is_tail_dirty_ = is_tail_dirty_ || ticket.tail_ != nullptr;
}

// Creates the file of the next manifest, so that the next sync needs nothing of the system.
void SegmentedLog::prepare_temp_manifest() {
    if (temp_manifest_.file == nullptr) temp_manifest_ = create_temp_manifest(*env_, directory_);
}

// Called before a change of the log's layout: creates the file of a pending manifest, which
// write_pending_manifest() writes after the change, without a sync. If only this process dies, the
// page cache has that manifest and all files that it names, and recovery uses it. After a power
// loss recovery uses it only if all these files are complete. On a full disk there is no pending
// manifest.
SegmentedLog::PendingManifest SegmentedLog::create_pending_manifest() {
    prepare_temp_manifest();
    PendingManifest pending{++generation_, pending_path(directory_, generation_), nullptr};
    try {
        pending.file = env_->create(pending.path);
    } catch (const DiskFullError&) {
    }
    return pending;
}

// Called after the change: writes the pending manifest. If memory is short, that is done before
// the next append.
void SegmentedLog::write_pending_manifest(const PendingManifest& pending) {
    needs_pending_manifest_ = false;
    if (pending.file == nullptr) return;
    try {
        pending.file->pwrite(0, View(encoded_manifest(pending.generation)));
    } catch (const DiskFullError&) {
        env_->discard(pending.path);
        return;
    } catch (const std::bad_alloc&) {
        env_->discard(pending.path);
        needs_pending_manifest_ = true;
        return;
    }
    if (pending_ != 0) env_->discard(pending_path(directory_, pending_));
    pending_ = pending.generation;
}

}  // namespace copycat

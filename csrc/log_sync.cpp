// How a SegmentedLog becomes durable, and how a new layout becomes known: sync, manifest, notes.
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
        ticket->aside_ = std::exchange(aside_, Aside{});
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

// It was never begun: what it was to make durable waits for the next one.
void SegmentedLog::cancel(SyncTicket& ticket) noexcept {
    in_flight_.reset();
    unsynced_ = std::move(ticket.unsynced_);
    excess_ = std::move(ticket.excess_);
    if (ticket.manifest_) aside_ = std::move(ticket.aside_);
    is_layout_new_ = is_layout_new_ || ticket.manifest_.has_value();
    is_tail_dirty_ = is_tail_dirty_ || ticket.tail_ != nullptr;
}

// All that the next sync of a new layout needs of the system.
void SegmentedLog::ready_aside() {
    if (aside_.file == nullptr) aside_ = make_aside(*env_, directory_);
}

// Before a change of the log's layout: what the change needs of the system to become known. The
// manifest as it will be is written without a sync: after the death of this process alone the
// page cache holds it and all it names, and recovery goes on from there. After a power loss it
// counts only if all that it names is whole. A full disk merely leaves it out.
SegmentedLog::Note SegmentedLog::begin_note() {
    ready_aside();
    Note note{++generation_, pending_path(directory_, generation_), nullptr};
    try {
        note.file = env_->create(note.path);
    } catch (const DiskFullError&) {
    }
    return note;
}

// The layout has changed. Without the memory for it, it is noted before the next append.
void SegmentedLog::end_note(const Note& note) {
    wants_note_ = false;
    if (note.file == nullptr) return;
    try {
        note.file->pwrite(0, View(encoded_manifest(note.generation)));
    } catch (const DiskFullError&) {
        env_->discard(note.path);
        return;
    } catch (const std::bad_alloc&) {
        env_->discard(note.path);
        wants_note_ = true;
        return;
    }
    if (pending_ != 0) env_->discard(pending_path(directory_, pending_));
    pending_ = note.generation;
}

}  // namespace copycat

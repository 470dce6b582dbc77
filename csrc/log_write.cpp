// How a SegmentedLog changes: append, roll, truncate, trim, close.
#include <algorithm>

#include "log.hpp"

namespace copycat {
namespace {

// The next segment file is prepared once the tail is a quarter full, so that a log of a few
// entries never allocates one.
constexpr std::uint64_t spare_fraction = 4;
// From this average size of an append on, new segment files are not filled with zeros: it pays
// only for small appends.
constexpr std::uint64_t bulk_append_bytes = std::uint64_t{64} << 10;
// How many obsolete files one call removes, so that other work of its thread is not delayed.
constexpr std::size_t obsolete_files_at_once = 8;
// A sealed file is cut to its content while the log is open only if that frees at least this
// much; the next open cuts every file.
constexpr std::uint64_t least_excess = std::uint64_t{64} << 10;

// Allocates memory for one more element, so that the next push_back() cannot throw.
template <typename T>
void make_room(std::vector<T>& values) {
    if (values.size() == values.capacity()) values.reserve(2 * values.size() + 4);
}

}  // namespace

// Runs `verb`. A full disk and a lack of descriptors or memory are reported before anything has
// changed, so the log stays usable; any other error of the disk poisons the log (F10, F12, F29).
template <typename Verb>
void SegmentedLog::poisoning(Verb verb) {
    try {
        verb();
    } catch (const DiskFullError&) {
        throw;
    } catch (const ResourceError&) {
        throw;
    } catch (const IoError& error) {
        log_status_->poison(error);
        throw;
    }
}

// --- append ------------------------------------------------------------------------------------

void SegmentedLog::append(const Frames& batch) {
    check_writable();
    const Span& span = batch.span;
    if (span.first != last_index() + 1)
        throw std::invalid_argument("a batch of entries from " + std::to_string(span.first) +
                                    " on cannot follow entry " + std::to_string(last_index()));
    if (span.term < tail_->last_term())
        throw std::invalid_argument("a batch of term " + std::to_string(span.term) +
                                    " cannot follow term " + std::to_string(tail_->last_term()));
    if (span.first == span.end) return;
    poisoning([&] {
        if (needs_pending_manifest_) write_pending_manifest(create_pending_manifest());
        if (tail_->fits(batch))
            write(batch);
        else
            append_rolling(batch);
    });
}

void SegmentedLog::write(const Frames& batch) {
    if (has_tail_index_) {
        // The index file of the tail says that nothing follows the close mark. It is removed
        // durably before the first append that would make it untrue.
        const std::string path = index_path(directory_, tail_->row().id, tail_->row().version);
        if (env_->exists(path)) env_->unlink(path);  // absent if only the sync below failed before
        handle_->sync();
        has_tail_index_ = false;
    }
    tail_->append(batch, durable_index_);
    is_tail_dirty_ = true;
}

// Divides the batch into pieces that fit into one segment each; a single entry that is larger than
// a segment is a piece of its own.
std::vector<Frames> SegmentedLog::cut_to_segments(const Frames& batch) const {
    const std::uint64_t room = options_.max_segment_size - size_for(0);
    std::vector<Frames> pieces;
    const View bytes = batch.block.bytes;
    std::uint64_t first = batch.span.first;
    std::uint64_t count = 0;
    std::size_t begin = 0;
    std::size_t at = 0;
    const auto cut = [&](std::uint64_t end) {
        pieces.push_back({batch.block.part(begin, at - begin),
                          {batch.span.term, first, end},
                          batch.may_have_gaps});
        first = end;
        count = 0;
        begin = at;
    };
    for (std::uint64_t index = batch.span.first; index < batch.span.end;) {
        const Frame frame = frame_at(bytes, at);
        const bool is_full = count == options_.max_entries || at - begin + frame.total() > room ||
                             frame.end() - first > max_record_start;
        if (is_full && count > 0) cut(index);
        at += frame.total();
        index = frame.end();
        ++count;
    }
    cut(batch.span.end);
    return pieces;
}

void SegmentedLog::append_rolling(const Frames& batch) {
    // With durability "os" no sync may have followed the previous roll. The durable manifest must
    // not be more than one segment behind, so sync now. Check for free space first: a manifest
    // write that fails half-way would poison the log.
    if (is_sync_overdue()) {
        if (!preallocated_files_->has_slack())
            throw DiskFullError("write a manifest in", directory_, ENOSPC);
        sync_now();
    }
    const std::vector<Frames> pieces = cut_to_segments(batch);
    const PendingManifest pending = create_pending_manifest();
    or_undo([&] { append_pieces(pieces, begin_tails(pieces)); },
            [&] { env_->discard(pending.path); });
    write_pending_manifest(pending);
}

// Creates a segment for each piece before any of them becomes part of the log: all or none.
std::vector<std::unique_ptr<Tail>> SegmentedLog::begin_tails(const std::vector<Frames>& pieces) {
    std::vector<Spare> spares;
    std::vector<std::unique_ptr<Tail>> tails;
    spares.reserve(pieces.size());
    tails.reserve(pieces.size());
    const auto undo = [&] {
        for (const auto& tail : tails) env_->discard(tail->path());
        for (Spare& spare : spares) preallocated_files_->give_back(std::move(spare));
    };
    or_undo(
        [&] {
            for (const Frames& piece : pieces)
                spares.push_back(preallocated_files_->take(size_for(piece.nbytes())));
            for (const Frames& piece : pieces) {
                Row row;
                row.id = next_id_++;
                row.first_index = piece.span.first;
                row.prev_term = tails.empty() ? tail_->last_term() : piece.span.term;
                const Spare spare = std::move(spares.front());
                spares.erase(spares.begin());
                tails.push_back(Tail::begin(env_, directory_, spare, row, options_.max_entries));
            }
        },
        undo);
    return tails;
}

void SegmentedLog::append_pieces(const std::vector<Frames>& pieces,
                                 std::vector<std::unique_ptr<Tail>> tails) {
    std::size_t i = 0;
    try {
        for (; i < pieces.size(); ++i) {
            replace_tail(std::move(tails[i]));
            write(pieces[i]);
        }
    } catch (const DiskFullError& error) {
        // Rare, since the files are preallocated. Once a piece is written the append cannot be
        // undone.
        if (i > 0) log_status_->poison(error);
        discard(tails);
        throw;
    } catch (const std::bad_alloc&) {
        discard(tails);
        throw;
    }
}

// Deletes the files of the tails that did not become part of the log; those that did are null.
void SegmentedLog::discard(const std::vector<std::unique_ptr<Tail>>& tails) noexcept {
    for (const auto& tail : tails)
        if (tail != nullptr) env_->discard(tail->path());
}

// Begins a tail `row` in the file `spare`. After a ResourceError the file of `spare` is deleted,
// and the log is as it was.
void SegmentedLog::begin_tail(const Row& row, const Spare& spare) {
    auto fresh = Tail::begin(env_, directory_, spare, row, options_.max_entries);
    or_undo([&] { replace_tail(std::move(fresh)); }, [&] { env_->discard(spare.file->path()); });
}

// Makes `fresh` the tail. The old tail becomes a sealed segment, which the next sync ticket syncs
// (C8); an empty one is deleted.
void SegmentedLog::replace_tail(std::unique_ptr<Tail>&& fresh) {
    if (tail_->is_empty()) {
        mark_obsolete(tail_->row());
    } else {
        make_room(segments_);
        make_room(unsynced_);
        make_room(loose_);
        const auto sealed = tail_->seal();
        sealed->set_file_cache(file_cache_, options_.mapped);
        segments_.push_back(sealed);
        unsynced_.push_back(sealed);
        if (whole_blocks(sealed->row().end_offset) + least_excess <= tail_->max_size())
            loose_.push_back(sealed);
        for (std::string& path : lost_) mark_obsolete(std::move(path));
        lost_.clear();
    }
    tail_ = std::move(fresh);
    has_tail_index_ = false;
    is_tail_dirty_ = true;
    is_layout_new_ = true;
    needs_pending_manifest_ = true;
}

void SegmentedLog::mark_obsolete(const Row& row) noexcept {
    try {
        mark_obsolete(segment_path(directory_, row.id, row.version));
        mark_obsolete(index_path(directory_, row.id, row.version));
    } catch (const std::bad_alloc&) {  // the next open removes it (F4)
    }
}

void SegmentedLog::mark_obsolete(std::string&& path) noexcept {
    try {
        excess_.push_back({std::move(path), 0});
    } catch (const std::bad_alloc&) {
    }
}

void SegmentedLog::drop(const Segment& segment) noexcept {
    const auto is_it = [&](const auto& each) { return each.get() == &segment; };
    file_cache_->forget(segment.row());
    mark_obsolete(segment.row());
    std::erase_if(unsynced_, is_it);
    std::erase_if(loose_, is_it);
}

// --- shrinking ---------------------------------------------------------------------------------

void SegmentedLog::truncate(std::uint64_t after) {
    check_writable();
    if (after + 1 < first_index())
        throw std::out_of_range("cannot truncate after entry " + std::to_string(after) +
                                ": the log begins at " + std::to_string(first_index()));
    if (after >= last_index()) return;
    std::uint64_t end_offset = 0;
    if (after >= first_index())  // this read may fail, so it comes before the first change
        end_offset =
            after >= tail_->first_index() ? tail_->end_of(after) : segment_of(after).end_of(after);
    poisoning([&] {
        Row row;
        row.id = next_id_++;
        row.first_index = after + 1;
        row.prev_term = term_at(after);
        const PendingManifest pending = create_pending_manifest();
        or_undo(
            [&] {
                loose_.reserve(loose_.size() + 2);
                begin_tail(row, preallocated_files_->take(options_.max_segment_size));
            },
            [&] { env_->discard(pending.path); });
        ++truncations_;
        while (!segments_.empty() && segments_.back()->first_index() > after) {
            drop(*segments_.back());
            segments_.pop_back();
        }
        if (!segments_.empty()) cut_last(after, end_offset);
        durable_index_ = std::min(durable_index_, after);
        if (in_flight_ != nullptr)
            in_flight_->end_index_ = std::min(in_flight_->end_index_, after);
        write_pending_manifest(pending);
    });
}

// Ends the last segment after entry `after`. The bytes behind that stay in its file until no
// manifest names them any more.
void SegmentedLog::cut_last(std::uint64_t after, std::uint64_t end_offset) {
    Segment& last = *segments_.back();
    if (whole_blocks(end_offset) + least_excess <= last.row().end_offset)
        loose_.push_back(segments_.back());
    last.cut(after, end_offset);
}

void SegmentedLog::trim(std::uint64_t before) {
    check_writable();
    const auto first_kept =
        std::find_if(segments_.begin(), segments_.end(),
                     [&](const auto& segment) { return segment->last_index() >= before; });
    if (first_kept == segments_.begin()) return;
    poisoning([&] {
        const PendingManifest pending = create_pending_manifest();
        std::for_each(segments_.begin(), first_kept, [&](const auto& segment) { drop(*segment); });
        segments_.erase(segments_.begin(), first_kept);
        is_layout_new_ = true;
        write_pending_manifest(pending);
    });
}

void SegmentedLog::reset(const EntryId& entry) {
    check_writable();
    if ((entry.index == 0) != (entry.term == 0) || entry.index >= max_index)
        throw std::invalid_argument("a log cannot begin after entry " +
                                    std::to_string(entry.index) + " of term " +
                                    std::to_string(entry.term));
    poisoning([&] {
        Row row;
        row.id = next_id_++;
        row.first_index = entry.index + 1;
        row.prev_term = entry.term;
        const PendingManifest pending = create_pending_manifest();
        or_undo([&] { begin_tail(row, preallocated_files_->take(options_.max_segment_size)); },
                [&] { env_->discard(pending.path); });
        ++truncations_;
        for (const auto& segment : segments_) drop(*segment);
        segments_.clear();
        durable_index_ = std::min(durable_index_, entry.index);
        if (in_flight_ != nullptr)
            in_flight_->end_index_ = std::min(in_flight_->end_index_, entry.index);
        write_pending_manifest(pending);
    });
}

// --- the rest ----------------------------------------------------------------------------------

void SegmentedLog::mark_idle() {
    check_writable();
    if (tail_->marked_upto() >= durable_index_ || !tail_->has_room_for_marks(2)) return;
    poisoning([&] { tail_->mark(mark_flag_idle, durable_index_); });
    is_tail_dirty_ = true;
}

bool SegmentedLog::has_room(std::uint64_t bytes, std::uint64_t entries, bool in_new) {
    check_writable();
    if (!in_new && tail_->fits(bytes, entries, last_index() + 1 + entries)) return true;
    if (is_sync_overdue() && !preallocated_files_->has_slack()) return false;
    const std::uint64_t room = options_.max_segment_size - size_for(0);
    std::uint64_t pieces = 1 + std::max(bytes / (room + 1), entries / (options_.max_entries + 1));
    // An entry is never divided, so each piece may leave up to half of its segment unused.
    if (pieces > 1) pieces *= 2;
    // A single entry above the segment size gets a file of its own size.
    return preallocated_files_->has_room(
        pieces, bytes > room ? size_for(bytes) : options_.max_segment_size);
}

bool SegmentedLog::wants_spare() {
    if (is_closed_ || options_.read_only || log_status_->is_poisoned()) return false;
    const std::uint64_t count = tail_->slots().count();
    const bool is_filling = tail_->end_offset() >= tail_->max_size() / spare_fraction ||
                            count >= options_.max_entries / spare_fraction;
    const std::uint64_t bytes = tail_->end_offset() - segment_data_offset;
    fills_preallocated_ = bytes < bulk_append_bytes * std::max<std::uint64_t>(tail_->appends(), 1);
    return is_filling && preallocated_files_->ready() == 0;
}

void SegmentedLog::prepare_spare() {
    log_status_->check();
    poisoning([&] { preallocated_files_->prepare(fills_preallocated_); });
}

bool SegmentedLog::has_obsolete_files() const {
    return obsolete_files_->any() && !log_status_->is_poisoned();
}

void SegmentedLog::remove_obsolete_files() {
    log_status_->check();
    obsolete_files_->remove(obsolete_files_at_once);
}

void SegmentedLog::close() {
    if (is_closed_) return;
    for (const auto& each : rewrites_)
        if (const auto rewrite = each.lock()) rewrite->end();
    struct Release {
        SegmentedLog& log;
        bool is_over = true;
        ~Release() {
            if (!is_over) return;
            log.is_closed_ = true;
            log.file_cache_->forget_all();
            log.lock_.reset();
        }
    } release{*this};
    if (options_.read_only || log_status_->is_poisoned()) return;
    try {
        poisoning([&] { finish(); });
    } catch (const ResourceError&) {
        release.is_over = false;
        throw;
    } catch (const std::bad_alloc&) {
        release.is_over = false;
        throw;
    }
}

// Syncs everything, then writes the close mark, which proves to the next open that the log was
// closed cleanly (C7).
void SegmentedLog::finish() {
    if (in_flight_ != nullptr) {
        in_flight_->run();
        end_sync(*in_flight_);
    }
    sync_now();
    preallocated_files_->close();
    if (temp_manifest_.file != nullptr)
        env_->discard(std::exchange(temp_manifest_, TempManifest{}).path);
    while (obsolete_files_->any()) {
        try {
            obsolete_files_->remove(obsolete_files_at_once);
        } catch (const IoError&) {  // the next open removes the file (F4), or reports the error
        }
    }
    if (tail_->has_room_for_marks(1)) {
        if (!has_tail_index_)
            write_index(*env_, index_path(directory_, tail_->row().id, tail_->row().version),
                        tail_->row(), *tail_->index_copy());
        tail_->mark(mark_flag_close, durable_index_);
        tail_->file()->fdatasync();
    }
}

}  // namespace copycat

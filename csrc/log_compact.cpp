// How a SegmentedLog deletes entries: releases, statistics, rewrites and their installation.
#include <algorithm>

#include "log.hpp"

namespace copycat {

void SegmentedLog::release(std::span<const std::uint64_t> indexes, Release policy) {
    check_open();
    const std::uint64_t last = last_index();
    for (const std::uint64_t index : indexes)
        if (index > last)
            throw std::out_of_range("entry " + std::to_string(index) +
                                    " cannot be released: the log ends at " +
                                    std::to_string(last));
    Segment* segment = nullptr;
    for (const std::uint64_t index : indexes) {
        if (index < first_index()) continue;
        if (index >= tail_->first_index()) {
            tail_->release(index, policy);
            continue;
        }
        const bool is_near = segment != nullptr && segment->first_index() <= index &&
                             index <= segment->last_index();
        if (!is_near) segment = &segment_of(index);
        segment->release(index, policy);
    }
}

// The limits, with a horizon at or below which entries of sealed segments may be deleted: never
// one that is not durable, and never the last entry of the log.
Limits SegmentedLog::capped(Limits limits) const {
    const std::uint64_t last = last_index();
    limits.horizon = std::min({limits.horizon, durable_index_, last == 0 ? 0 : last - 1});
    return limits;
}

// Sealed, and no power loss can make it a tail again.
bool SegmentedLog::is_durable(const Segment& segment) const {
    return segment.last_index() <= durable_index_;
}

std::vector<SegmentStats> SegmentedLog::segment_stats(const Limits& uncapped) {
    check_open();
    const Limits limits = capped(uncapped);
    std::vector<SegmentStats> out;
    for (const auto& segment : segments_) {
        const Row& row = segment->row();
        const Liveness& liveness = segment->liveness();
        SegmentStats stats{row.id,
                           row.version,
                           row.first_index,
                           row.last_index,
                           row.end_offset,
                           segment->entries(),
                           liveness.released(),
                           0,
                           0,
                           is_durable(*segment)};
        if (liveness.released() != 0) {
            const SlotView view = segment->view();
            stats.removable_minor = liveness.count_removable(view, limits, false);
            stats.removable_major = liveness.count_removable(view, limits, true);
        }
        out.push_back(stats);
    }
    const Row& row = tail_->row();
    out.push_back({row.id, row.version, row.first_index, last_index(), tail_->end_offset(),
                   tail_->entries(), tail_->liveness().released(), 0, 0, false});
    return out;
}

// The segments of one group, in the log's order and neighbours.
Rewrite::Group SegmentedLog::group_of(std::span<const std::uint64_t> ids, const Limits& limits,
                                      bool major) {
    if (ids.empty()) throw std::invalid_argument("a group of no segments");
    auto next = std::find_if(segments_.begin(), segments_.end(),
                             [&](const auto& each) { return each->row().id == ids.front(); });
    Rewrite::Group group;
    for (const std::uint64_t id : ids) {
        if (next == segments_.end() || (*next)->row().id != id || !is_durable(**next))
            throw std::invalid_argument("segment " + std::to_string(id) +
                                        " is not sealed, not durable, or no neighbour");
        Segment& segment = **next++;
        const Row& row = segment.row();
        group.segments.push_back(*std::prev(next));
        group.rows.push_back(row);
        group.drops.push_back(segment.liveness().removable(segment.view(), limits, major));
        group.indexes.push_back(segment.index());
        group.bytes_before += row.end_offset;
        group.stored_before += segment.stored_bytes();
        group.row.version = std::max(group.row.version, row.version + 1);
    }
    const Row& first = group.rows.front();
    const Row& last = group.rows.back();
    if (group.bytes_before > max_file_size ||
        last.last_index - first.first_index > max_record_start)
        throw std::invalid_argument("the segments from " + std::to_string(first.id) +
                                    " on do not fit into one");
    group.row.id = first.id;
    group.row.sealed = true;
    group.row.first_index = first.first_index;
    group.row.last_index = last.last_index;
    group.row.prev_term = first.prev_term;
    return group;
}

std::shared_ptr<Rewrite> SegmentedLog::rewrite(const std::vector<std::vector<std::uint64_t>>& ids,
                                               const Limits& uncapped, bool major) {
    check_writable();
    const Limits limits = capped(uncapped);
    std::vector<Rewrite::Group> groups;
    for (const auto& each : ids) groups.push_back(group_of(each, limits, major));
    std::erase_if(rewrites_, [](const auto& each) { return each.expired(); });
    for (const auto& each : rewrites_)
        if (const auto other = each.lock())
            for (const auto& group : groups)
                if (other->may_write(group.row))
                    throw std::invalid_argument("segment " + std::to_string(group.row.id) +
                                                " is being rewritten already");
    auto made = std::make_shared<Rewrite>(env_, directory_, std::move(groups),
                                          std::min(uncapped.horizon, last_index()),
                                          options_.compress, log_status_, this);
    rewrites_.push_back(made);
    return made;
}

// True while the segments that a group was made of are unchanged and part of the log.
bool SegmentedLog::is_current(const Rewrite::Group& group) const {
    const auto begin = std::find(segments_.begin(), segments_.end(), group.segments.front());
    if (static_cast<std::size_t>(segments_.end() - begin) < group.segments.size()) return false;
    return std::equal(group.segments.begin(), group.segments.end(), begin) &&
           group.segments.back()->last_index() == group.row.last_index;
}

// The segment that a group becomes. Entries that were released while it was written, or whose
// release does not allow the deletion yet, are marked as released in it.
std::shared_ptr<Segment> SegmentedLog::successor(const Rewrite::Group& group) {
    auto fresh = std::make_shared<Segment>(env_, directory_, group.row, group.index, nullptr);
    fresh->set_file_cache(file_cache_, options_.mapped);
    fresh->set_packed_bytes(group.bytes_after);
    for (std::size_t i = 0; i < group.segments.size(); ++i)
        fresh->inherit(*group.segments[i], group.drops[i]);
    return fresh;
}

void SegmentedLog::swap_in(Rewrite::Group& group, std::shared_ptr<Segment> fresh) {
    const auto at = std::find(segments_.begin(), segments_.end(), group.segments.front());
    const auto end = at + static_cast<std::ptrdiff_t>(group.segments.size());
    segments_.insert(segments_.erase(at, end), std::move(fresh));
    group.is_installed = true;
    is_layout_new_ = true;
    // Only now, since a file that is still part of the log must never be marked obsolete.
    for (const auto& old : group.segments) drop(*old);
    group.segments.clear();
}

CompactionResult SegmentedLog::install(Rewrite& rewrite) {
    check_writable();
    require(rewrite.log_ == this, "a rewrite is installed by the log that began it");
    require(rewrite.is_done(), "a rewrite is run before it is installed");
    for (const Rewrite::Group& group : rewrite.groups_)
        if (!group.missing.empty() && is_current(group))
            throw CorruptError("segment file " + group.missing + " is missing", group.missing, -1,
                               group.row.first_index);
    CompactionResult result;
    // Everything that may throw (to open or to rebuild an index) comes before the first change.
    std::vector<std::pair<Rewrite::Group*, std::shared_ptr<Segment>>> made;
    for (Rewrite::Group& group : rewrite.groups_) {
        if (group.is_installed) continue;
        if (is_current(group)) {
            made.emplace_back(&group, successor(group));
        } else if (first_index() <= group.row.last_index) {
            // A part of this group is still in the log with the entries that it was to lose, so a
            // deletion in a group behind it must stay too. (After a truncation, no group behind
            // it is left.)
            result.is_cut_short = true;
            break;
        }
    }
    if (!made.empty()) prepare_temp_manifest();
    for (auto& [group, fresh] : made) {
        result.segments_before += group->segments.size();
        result.segments_after += 1;
        result.bytes_before += group->stored_before;
        result.bytes_after += group->bytes_after;
        result.entries_dropped += group->entries_dropped;
        swap_in(*group, std::move(fresh));
    }
    rewrite.abandon();  // deletes the files of groups whose segments changed
    return result;
}

}  // namespace copycat

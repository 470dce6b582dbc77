#include "slots.hpp"

#include <algorithm>

namespace copycat {

std::size_t SlotView::position_of(std::uint64_t index, std::size_t& hint) const {
    const std::uint64_t start = index - first_index;
    if (is_dense()) return static_cast<std::size_t>(start);
    const auto holds = [&](std::size_t at) {
        return at < starts.size() && starts[at] <= start &&
               (at + 1 == starts.size() || start < starts[at + 1]);
    };
    if (holds(hint)) return hint;
    if (holds(hint + 1)) return ++hint;
    const auto after = std::upper_bound(starts.begin(), starts.end(), start);
    hint = after == starts.begin() ? 0 : static_cast<std::size_t>(after - starts.begin()) - 1;
    return hint;
}

SlotView::Extent SlotView::extent(std::uint64_t first, std::uint64_t end_, std::uint64_t max_bytes,
                                  std::size_t& hint) const {
    const std::size_t begin = position_of(first, hint);
    std::size_t last = begin;
    // At least one record, even if the starts are wrong.
    const std::size_t limit = std::max(position_of(end_ - 1, last), begin) + 1;
    const std::uint64_t from = slots[begin].offset;
    // Offsets grow, so a binary search gives the last frame that begins within max_bytes.
    const auto after = std::partition_point(
        slots.begin() + static_cast<std::ptrdiff_t>(begin) + 1,
        slots.begin() + static_cast<std::ptrdiff_t>(limit),
        [&](const IndexSlot& slot) { return slot.end() - from <= max_bytes; });
    const auto count = static_cast<std::size_t>(after - slots.begin());
    return {from, slots[count - 1].end(), std::min(end_, end_of(count - 1))};
}

SlotView SlotView::upto(std::uint64_t last) const {
    if (last < first_index) return {first_index, first_index, {}, {}};
    std::size_t hint = 0;
    const std::size_t kept_count = std::min(position_of(last, hint) + 1, count());
    return {first_index, last + 1, slots.first(kept_count),
            is_dense() ? std::span<const std::uint32_t>{} : starts.first(kept_count)};
}

void Slots::allocate(std::size_t more, bool may_have_gaps) {
    const std::size_t least = slots_.size() + more;
    if (slots_.capacity() < least) slots_.reserve(std::max(least, 2 * slots_.capacity()));
    if ((may_have_gaps || !starts_.empty()) && starts_.capacity() < least)
        starts_.reserve(std::max(least, 2 * starts_.capacity()));
}

void Slots::become_sparse() {
    for (std::size_t at = 0; at <= slots_.size(); ++at)
        starts_.push_back(static_cast<std::uint32_t>(at));
}

void Slots::cut(std::size_t count) {
    if (count == slots_.size()) return;
    end_index_ = view().index_of(count);
    slots_.resize(count);
    if (!starts_.empty()) starts_.resize(count);
}

}  // namespace copycat

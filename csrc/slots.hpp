// Where the records of a segment are: dense while each record has one index, sparse with gaps
// (C3).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "errors.hpp"
#include "format.hpp"

namespace copycat {

// A view of the records of the indexes [first_index, end), in order.
struct SlotView {
    std::uint64_t first_index = 1;
    std::uint64_t end = 1;
    std::span<const IndexSlot> slots;
    std::span<const std::uint32_t> starts;  // of each record, from first_index; empty when dense

    std::size_t count() const { return slots.size(); }
    bool is_dense() const { return starts.empty(); }
    // The position of the record that contains `index`; never out of bounds, even if the starts
    // are wrong. `hint` is where the last search ended, which makes reads in order fast.
    std::size_t position_of(std::uint64_t index, std::size_t& hint) const;
    std::uint64_t index_of(std::size_t position) const {
        return first_index + (is_dense() ? position : starts[position]);
    }
    // One past the last index of the record.
    std::uint64_t end_of(std::size_t position) const {
        return position + 1 == count() ? end : index_of(position + 1);
    }
    // The part of the file with the frames of [first, end) that begin within `max_bytes`; at least
    // one frame.
    struct Extent {
        std::uint64_t from;  // offset in the file
        std::uint64_t to;
        std::uint64_t end;  // one past the last index of these frames
    };
    Extent extent(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes,
                  std::size_t& hint) const;
    // The part up to the record that contains `last`; its end is right after `last`.
    SlotView upto(std::uint64_t last) const;
};

// The records of a segment that grows: a tail, a scan, or a rewrite.
class Slots {
public:
    explicit Slots(std::uint64_t first_index)
        : first_index_(first_index), end_index_(first_index) {}
    explicit Slots(const SlotView& view)
        : first_index_(view.first_index),
          end_index_(view.end),
          slots_(view.slots.begin(), view.slots.end()),
          starts_(view.starts.begin(), view.starts.end()) {}

    std::size_t count() const { return slots_.size(); }
    std::uint64_t first_index() const { return first_index_; }
    std::uint64_t end() const { return end_index_; }
    SlotView view() const { return {first_index_, end_index_, slots_, starts_}; }
    const IndexSlot& back() const { return slots_.back(); }

    // Allocates memory for `more` records, so that push() cannot throw.
    void allocate(std::size_t more, bool may_have_gaps);
    // Adds the record of the indexes [end(), end).
    void push(const IndexSlot& slot, std::uint64_t end) {
        const std::uint64_t start = end_index_ - first_index_;
        require(start <= max_record_start, "a segment spans less than 2^32 indexes");
        if (!starts_.empty()) {
            starts_.push_back(static_cast<std::uint32_t>(start));
        } else if (end != end_index_ + 1) {
            become_sparse();
        }
        slots_.push_back(slot);
        end_index_ = end;
    }
    // Keeps only the first `count` records.
    void cut(std::size_t count);

private:
    void become_sparse();

    std::uint64_t first_index_;
    std::uint64_t end_index_;
    std::vector<IndexSlot> slots_;
    std::vector<std::uint32_t> starts_;
};

}  // namespace copycat

// Where each record of one segment is: in memory (tail, just sealed) or mapped (sealed).
// A cache: rebuildable from the segment, never trusted over it (F14).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "env.hpp"
#include "manifest.hpp"
#include "slots.hpp"

namespace copycat {

class SlotIndex {
public:
    SlotIndex(Slots slots, std::vector<TermRun> runs, std::uint64_t valid_from);

    // The index file of `row`. Empty when it cannot be opened, is short or its header is wrong.
    // With is_sealed it must reach the row's last index; more is the row's truncation.
    static std::shared_ptr<SlotIndex> open(Env& env, const std::string& path, const Row& row,
                                           bool is_sealed);

    std::uint64_t count() const { return view_.count(); }
    std::uint64_t end() const { return view_.end; }
    const std::vector<TermRun>& runs() const { return runs_; }
    std::uint64_t valid_from() const { return valid_from_; }
    bool is_mapped() const { return mapped_.owner != nullptr; }
    // True when the records can be read and fit their checksum; looked at once.
    bool verify(Env& env);
    const SlotView& view() const { return view_; }
    // The record that holds `index`. Loop thread.
    const IndexSlot& find(std::uint64_t index) {
        std::size_t position = 0;
        return find(index, position);
    }
    const IndexSlot& find(std::uint64_t index, std::size_t& position) {
        position = view_.position_of(index, hint_);
        return view_.slots[position];
    }
    SlotView::Extent extent(std::uint64_t first, std::uint64_t end, std::uint64_t max_bytes) {
        return view_.extent(first, end, max_bytes, hint_);
    }
    // The slots as bytes, with whoever owns them; empty owner when in memory.
    Block block() const;

    Bytes encode(const Row& row) const;
    // Those that it was made of; it is of no use then.
    Slots take_slots() { return std::move(memory_); }

private:
    explicit SlotIndex(std::uint64_t first_index) : memory_(first_index) {}
    bool place();
    bool make_readable(Env& env);

    Slots memory_;
    std::string path_;
    IndexHeader header_{};
    Block mapped_;
    SlotView view_;
    std::size_t hint_ = 0;
    std::vector<TermRun> runs_;
    std::uint64_t valid_from_ = 0;
    std::uint32_t slots_crc_ = 0;
    bool verified_ = false;
};

// Adds `term` from `index` on, when it differs from the last run's.
inline void extend_runs(std::vector<TermRun>& runs, std::uint64_t term, std::uint64_t index) {
    if (runs.empty() || runs.back().term != term) runs.push_back({term, index});
}

}  // namespace copycat

// The index of a segment: where each of its records is. It is in memory for a tail or a segment
// that was just sealed, else mapped. It is a cache, and is rebuilt from the segment if it is wrong
// (F14).
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

    // Opens the index file of `row`; null if it cannot be opened, is short, or has a wrong header.
    // With is_sealed it must reach the row's last index; it has more after a truncation.
    static std::shared_ptr<SlotIndex> open(Env& env, const std::string& path, const Row& row,
                                           bool is_sealed);

    std::uint64_t count() const { return view_.count(); }
    std::uint64_t end() const { return view_.end; }
    const std::vector<TermRun>& runs() const { return runs_; }
    std::uint64_t valid_from() const { return valid_from_; }
    bool is_mapped() const { return mapped_.owner != nullptr; }
    // True when the records can be read and fit their checksum, which is checked once.
    bool verify(Env& env);
    const SlotView& view() const { return view_; }
    // The record that contains `index`. For the thread of the event loop only.
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
    // The slots as bytes; without an owner if they are in memory.
    Block block() const;

    Bytes encode(const Row& row) const;
    // Moves the slots out; the index must not be used afterwards.
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

// Begins a run of `term` at `index`, if the last run has another term.
inline void extend_runs(std::vector<TermRun>& runs, std::uint64_t term, std::uint64_t index) {
    if (runs.empty() || runs.back().term != term) runs.push_back({term, index});
}

}  // namespace copycat

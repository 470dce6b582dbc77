// Where each entry of one segment is: slots in memory (tail, just sealed) or mapped (sealed).
// A cache (D7): rebuildable from the segment, never trusted over it (F14).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "env.hpp"
#include "manifest.hpp"

namespace copycat {

class SlotIndex {
public:
    SlotIndex(std::uint64_t first_index, std::vector<IndexSlot> slots, std::vector<TermRun> runs);

    // The index file of `row`. Empty when it cannot be opened, is short or its header is wrong.
    // Fewer slots than the row has entries is wrong too; more are the row's truncation.
    static std::shared_ptr<SlotIndex> open(Env& env, const std::string& path, const Row& row,
                                           std::optional<std::uint64_t> count);

    std::uint64_t count() const { return slots_.size(); }
    const std::vector<TermRun>& runs() const { return runs_; }
    bool is_mapped() const { return mapped_.owner != nullptr; }
    // True when the slots fit their checksum; computed once.
    bool verify();
    // The slot of entry first_index + position.
    IndexSlot at(std::uint64_t position) const { return slots_[position]; }
    std::span<const IndexSlot> slots() const { return slots_; }
    // The slots as bytes, with whoever owns them; empty owner when in memory.
    Block block() const;

    Bytes encode(const Row& row) const;

private:
    SlotIndex() = default;

    std::vector<IndexSlot> memory_;
    Block mapped_;
    std::span<const IndexSlot> slots_;
    std::vector<TermRun> runs_;
    std::uint32_t slots_crc_ = 0;
    bool verified_ = false;
};

// Adds `term` from `index` on, when it differs from the last run's.
inline void extend_runs(std::vector<TermRun>& runs, std::uint64_t term, std::uint64_t index) {
    if (runs.empty() || runs.back().term != term) runs.push_back({term, index});
}

}  // namespace copycat

// Which records of a segment were released, and under which policy: three bits per record, which
// are allocated at the first release.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "slots.hpp"
#include "types.hpp"

namespace copycat {

// As copycat.types.Release. A larger value is stricter.
enum class Release : std::uint8_t {
    none = 0,
    any = 1,
    stable = 2,
    sequential = 3,
    snapshot = 4,
    unknown = 5,
};

// As copycat.types.CompactionLimits. Indexes are inclusive.
struct Limits {
    std::uint64_t horizon = 0;
    std::uint64_t deletion_floor = 0;
    std::uint64_t snapshot_index = 0;

    // The last index at which a record that was released under `policy` may be deleted; 0 if none
    // may.
    std::uint64_t upto(Release policy, bool major) const;
};

using Bits = std::vector<std::uint64_t>;

inline bool has_bit(const Bits& bits, std::size_t at) {
    return at / 64 < bits.size() && ((bits[at / 64] >> (at % 64)) & 1) != 0;
}

class Liveness {
public:
    // Releases a record. A looser policy replaces a stricter one, and not the other way round.
    void release(std::size_t position, Release policy);
    Release at(std::size_t position) const;
    std::uint64_t released() const { return released_; }
    // Records from `count` on are no longer part of the segment.
    void cut(std::size_t count);

    // A bit for each record: 1 if a compaction within `limits` deletes the record.
    Bits removable(const SlotView& view, const Limits& limits, bool major) const;
    std::uint64_t count_removable(const SlotView& view, const Limits& limits, bool major) const;
    // Calls each(position, policy) for every record that was released and is not in
    // `dropped_bits`, in order.
    template <typename Each>
    void for_each_but(const Bits& dropped_bits, Each each) const {
        for (std::size_t word = 0; word < planes_[0].size(); ++word)
            for (std::uint64_t left =
                     any_of(word) & ~(word < dropped_bits.size() ? dropped_bits[word] : 0);
                 left != 0; left &= left - 1) {
                const std::size_t position =
                    word * 64 + static_cast<std::size_t>(__builtin_ctzll(left));
                each(position, at(position));
            }
    }

private:
    std::uint64_t any_of(std::size_t word) const {
        return planes_[0][word] | planes_[1][word] | planes_[2][word];
    }
    std::uint64_t class_of(std::size_t word, Release policy) const;

    std::array<Bits, 3> planes_;  // bits 0, 1 and 2 of the policy
    std::uint64_t released_ = 0;
};

}  // namespace copycat

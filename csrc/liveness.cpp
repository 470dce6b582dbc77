#include "liveness.hpp"

#include <algorithm>
#include <bit>

namespace copycat {

std::uint64_t Limits::upto(Release policy, bool major) const {
    const std::uint64_t stable = std::min(horizon, deletion_floor);
    switch (policy) {
        case Release::none:
            return 0;
        case Release::any:
            return horizon;
        case Release::stable:
            return stable;
        case Release::sequential:
            return major ? stable : 0;
        case Release::snapshot:
            return std::min(horizon, snapshot_index);
        case Release::unknown:
            return major ? std::min(stable, snapshot_index) : 0;
    }
    return 0;
}

Release Liveness::at(std::size_t position) const {
    unsigned policy = 0;
    for (std::size_t plane = 0; plane < planes_.size(); ++plane)
        policy |= static_cast<unsigned>(has_bit(planes_[plane], position)) << plane;
    return static_cast<Release>(policy);
}

void Liveness::release(std::size_t position, Release policy) {
    const Release before = at(position);
    if (before != Release::none && before <= policy) return;
    if (before == Release::none) ++released_;
    const std::size_t word = position / 64;
    if (word >= planes_[0].size()) {
        // Grows by half: entries of a tail are released while it grows.
        const std::size_t size = std::max(word + 1, planes_[0].size() + planes_[0].size() / 2);
        for (Bits& plane : planes_) plane.resize(size);
    }
    const std::uint64_t bit = std::uint64_t{1} << (position % 64);
    for (std::size_t plane = 0; plane < planes_.size(); ++plane)
        if (((static_cast<unsigned>(policy) >> plane) & 1) != 0)
            planes_[plane][word] |= bit;
        else
            planes_[plane][word] &= ~bit;
}

void Liveness::cut(std::size_t count) {
    if (count / 64 >= planes_[0].size()) return;
    for (Bits& plane : planes_) {
        plane.resize(count / 64 + 1);
        plane.back() &= (std::uint64_t{1} << (count % 64)) - 1;
    }
    released_ = 0;
    for (std::size_t word = 0; word < planes_[0].size(); ++word)
        released_ += static_cast<std::uint64_t>(std::popcount(any_of(word)));
}

std::uint64_t Liveness::class_of(std::size_t word, Release policy) const {
    std::uint64_t bits = ~std::uint64_t{0};
    for (std::size_t plane = 0; plane < planes_.size(); ++plane) {
        const bool is_set = ((static_cast<unsigned>(policy) >> plane) & 1) != 0;
        bits &= is_set ? planes_[plane][word] : ~planes_[plane][word];
    }
    return bits;
}

Bits Liveness::removable(const SlotView& view, const Limits& limits, bool major) const {
    Bits out;
    for (const Release policy : {Release::any, Release::stable, Release::sequential,
                                 Release::snapshot, Release::unknown}) {
        const std::size_t count = view.upto(limits.upto(policy, major)).count();
        const std::size_t words = std::min((count + 63) / 64, planes_[0].size());
        if (out.size() < words) out.resize(words);
        for (std::size_t word = 0; word < words; ++word) {
            std::uint64_t bits = class_of(word, policy);
            if (word == count / 64) bits &= (std::uint64_t{1} << (count % 64)) - 1;
            out[word] |= bits;
        }
    }
    return out;
}

std::uint64_t Liveness::count_removable(const SlotView& view, const Limits& limits,
                                        bool major) const {
    std::uint64_t count = 0;
    for (const std::uint64_t word : removable(view, limits, major))
        count += static_cast<std::uint64_t>(std::popcount(word));
    return count;
}

}  // namespace copycat

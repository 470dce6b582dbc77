#include "lz4_block.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "errors.hpp"
#include "format.hpp"

namespace copycat {
namespace {

constexpr std::size_t match_min = 4;
constexpr std::size_t literals_at_end = 5;
constexpr std::size_t begin_before_end = 12;  // no match begins nearer to the end
constexpr std::size_t nibble_max = 15;
constexpr unsigned table_bits = 13;
// After so many misses (a power of two) the search takes longer steps, so that bytes which cannot
// be compressed take little time.
constexpr unsigned patience_bits = 6;
constexpr std::size_t wide = 16;  // short copies are made as one of this many bytes

std::uint32_t hash_of(std::uint32_t four) { return (four * 2654435761U) >> (32U - table_bits); }

// How many bytes from `a` on equal those from `b` on, which end at `end`; a < b.
std::size_t common(View plain, std::size_t a, std::size_t b, std::size_t end) {
    const std::size_t from = b;
    while (b + 8 <= end) {
        const std::uint64_t differ =
            load<std::uint64_t>(plain.data() + a) ^ load<std::uint64_t>(plain.data() + b);
        if (differ != 0) return b - from + static_cast<std::size_t>(std::countr_zero(differ)) / 8;
        a += 8;
        b += 8;
    }
    while (b < end && plain[a] == plain[b]) ++a, ++b;
    return b - from;
}

class Writer {
public:
    explicit Writer(MutableView into) : into_(into) {}

    // A match of no bytes ends the block. False when it does not fit.
    bool sequence(View literals, std::size_t distance, std::size_t match) {
        const std::size_t rest = match == 0 ? 0 : match - match_min;
        const std::size_t most =
            1 + literals.size() / 255 + 1 + literals.size() + 2 + rest / 255 + 1;
        if (most > into_.size() - at_) return false;
        put(std::min(literals.size(), nibble_max) << 4 | std::min(rest, nibble_max));
        length(literals.size());
        std::copy(literals.begin(), literals.end(), into_.data() + at_);
        at_ += literals.size();
        if (match == 0) return true;
        put(distance & 0xff);
        put(distance >> 8);
        length(rest);
        return true;
    }
    std::size_t size() const { return at_; }

private:
    void put(std::size_t byte) { into_[at_++] = static_cast<std::uint8_t>(byte); }
    void length(std::size_t value) {
        if (value < nibble_max) return;
        for (value -= nibble_max; value >= 255; value -= 255) put(255);
        put(value);
    }

    MutableView into_;
    std::size_t at_ = 0;
};

class Reader {
public:
    Reader(View block, MutableView into) : block_(block), into_(into) {}

    bool run() {
        while (from_ < block_.size()) {
            const std::size_t token = block_[from_++];
            if (!literals(token >> 4)) return false;
            if (from_ == block_.size()) return to_ == into_.size();
            if (!match(token & nibble_max)) return false;
        }
        return false;  // it ends in a match
    }

private:
    // A length is never more than the bytes that are left to fill, so no sum overflows.
    bool length(std::size_t& value) {
        if (value < nibble_max) return true;
        while (from_ < block_.size()) {
            const std::size_t more = block_[from_++];
            value += more;
            if (value > into_.size()) return false;
            if (more != 255) return true;
        }
        return false;
    }

    bool literals(std::size_t size) {
        if (!length(size)) return false;
        const std::size_t left = block_.size() - from_;
        const std::size_t room = into_.size() - to_;
        if (size > left || size > room) return false;
        const std::size_t copied = size <= wide && left >= wide && room >= wide ? wide : size;
        std::copy_n(block_.data() + from_, copied, into_.data() + to_);
        from_ += size;
        to_ += size;
        return true;
    }

    bool match(std::size_t size) {
        if (block_.size() - from_ < 2) return false;
        const std::size_t distance = block_[from_] | std::size_t{block_[from_ + 1]} << 8;
        from_ += 2;
        if (distance == 0 || distance > to_ || !length(size)) return false;
        size += match_min;
        const std::size_t room = into_.size() - to_;
        if (size > room) return false;
        std::uint8_t* const source = into_.data() + to_ - distance;
        if (size <= wide && distance >= wide && room >= wide) {
            std::copy_n(source, wide, into_.data() + to_);
            to_ += size;
            return true;
        }
        // A match that overlaps itself is copied in pieces of growing size.
        for (std::size_t left = size; left > 0;) {
            std::uint8_t* const target = into_.data() + to_;
            const std::size_t part = std::min(left, static_cast<std::size_t>(target - source));
            std::copy_n(source, part, target);
            to_ += part;
            left -= part;
        }
        return true;
    }

    View block_;
    MutableView into_;
    std::size_t from_ = 0;
    std::size_t to_ = 0;
};

}  // namespace

std::size_t lz4_compress(View plain, MutableView into) noexcept {
    if (plain.size() > lz4_plain_max) return 0;
    Writer out(into);
    std::array<std::uint16_t, std::size_t{1} << table_bits> table{};
    const auto four = [&](std::size_t at) { return load<std::uint32_t>(plain.data() + at); };
    std::size_t anchor = 0;  // literals from here on are not written yet
    std::size_t at = 0;
    std::size_t misses = 0;
    while (at + begin_before_end <= plain.size()) {
        std::uint16_t& place = table[hash_of(four(at))];
        std::size_t before = place;
        place = static_cast<std::uint16_t>(at);
        if (before >= at || four(before) != four(at)) {
            at += 1 + (misses++ >> patience_bits);
            continue;
        }
        misses = 0;
        while (at > anchor && before > 0 && plain[at - 1] == plain[before - 1]) --at, --before;
        const std::size_t size = match_min + common(plain, before + match_min, at + match_min,
                                                    plain.size() - literals_at_end);
        if (!out.sequence(plain.subspan(anchor, at - anchor), at - before, size)) return 0;
        at += size;
        anchor = at;
        if (at + begin_before_end <= plain.size())
            table[hash_of(four(at - 2))] = static_cast<std::uint16_t>(at - 2);
    }
    return out.sequence(plain.subspan(anchor), 0, 0) ? out.size() : 0;
}

bool lz4_decompress(View block, MutableView into) noexcept { return Reader(block, into).run(); }

}  // namespace copycat

// Types that all files of the log use: bytes, spans of entries, and shared memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace copycat {

using Bytes = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;
using MutableView = std::span<std::uint8_t>;
using Uuid = std::array<std::uint8_t, 16>;

struct EntryId {
    std::uint64_t term = 0;
    std::uint64_t index = 0;
    friend auto operator<=>(const EntryId&, const EntryId&) = default;
};

// The entries [first, end) of one term; empty when first == end.
struct Span {
    std::uint64_t term = 0;
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    friend bool operator==(const Span&, const Span&) = default;
};

// The entries from `first` up to the next run, all of which have this term.
struct TermRun {
    std::uint64_t term = 0;
    std::uint64_t first = 0;
    friend bool operator==(const TermRun&, const TermRun&) = default;
};

// Bytes that never change, and their owner (a vector, a mapping, a Python buffer), which the block
// keeps alive.
struct Block {
    std::shared_ptr<const void> owner;
    View bytes;

    static Block own(Bytes&& data) {
        auto buffer = std::make_shared<const Bytes>(std::move(data));
        const View bytes(*buffer);
        return Block{std::move(buffer), bytes};
    }
    Block part(std::size_t offset, std::size_t size) const {
        return Block{owner, bytes.subspan(offset, size)};
    }
};

}  // namespace copycat

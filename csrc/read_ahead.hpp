// Reads ahead in one file, so that reads of neighbouring records share a system call.
#pragma once

#include <algorithm>
#include <cstdint>

#include "env.hpp"

namespace copycat {

// For one thread at a time, and for a file whose bytes below `limit` never change.
class ReadAhead {
public:
    // Returns `size` bytes at `offset`; fewer only at the end of the file. Reads ahead, up to
    // `limit`, while each read begins about where the last one ended.
    Block at(File& file, std::uint64_t offset, std::size_t size, std::uint64_t limit) {
        const bool is_sequential = offset >= end_ && offset - end_ <= gap_max;
        end_ = offset + size;
        if (size > ahead_max) return file.read(offset, size);
        if (offset >= base_ && end_ <= base_ + block_.bytes.size())
            return block_.part(static_cast<std::size_t>(offset - base_), size);
        ahead_ = is_sequential ? std::min(std::max(ahead_ * 2, ahead_min), ahead_max) : 0;
        if (ahead_ <= size || limit < end_) return file.read(offset, size);
        block_ = Block{};
        base_ = offset;
        const auto ahead =
            static_cast<std::size_t>(std::min<std::uint64_t>(ahead_, limit - offset));
        try {
            block_ = file.read(offset, ahead);
        } catch (const Error&) {  // an error in the bytes ahead does not concern this read
            ahead_ = 0;
            return file.read(offset, size);
        }
        return block_.part(0, std::min(size, block_.bytes.size()));
    }

private:
    static constexpr std::size_t ahead_min = 2048;
    static constexpr std::size_t ahead_max = std::size_t{32} << 10;
    static constexpr std::uint64_t gap_max = 64;  // a mark or two

    Block block_;
    std::uint64_t base_ = 0;
    std::uint64_t end_ = 0;
    std::size_t ahead_ = 0;
};

}  // namespace copycat

// Frames out of the bytes of one segment: checked one by one, local marks left out (C4, C5).
#pragma once

#include <cstdint>
#include <string>

#include "frame.hpp"

namespace copycat {

// Whose bytes these are: `block` begins at file offset `base` of the segment `uuid`.
struct SegmentBytes {
    Block block;
    std::uint64_t base = 0;
    Uuid uuid{};
    const std::string& path;
};

// The frames from `first` (whose frame the bytes begin with) to at most `end`, about `max_bytes`,
// at least one; never across a term or a configuration; gaps are cut at first and end. Shares
// the bytes where no mark stands between the frames and no gap is cut, else copies. CorruptError
// names path, offset and index.
Frames gather(const SegmentBytes& bytes, std::uint64_t first, std::uint64_t end,
              std::uint64_t max_bytes);

// The frame of entry `index`, or the gap that it lies in, at the beginning of `bytes`.
// CorruptError.
Frame checked_frame(const SegmentBytes& bytes, std::uint64_t index);

}  // namespace copycat

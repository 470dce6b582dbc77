// Reads frames out of the bytes of a segment: checks each frame, and leaves out marks (C4, C5).
#pragma once

#include <cstdint>
#include <string>

#include "frame.hpp"

namespace copycat {

// Bytes of the segment `uuid`: `block` begins at offset `base` of its file.
struct SegmentBytes {
    Block block;
    std::uint64_t base = 0;
    Uuid uuid{};
    const std::string& path;
};

// The frames of [first, end), but not much more than `max_bytes`, and at least one frame. `bytes`
// begins with the frame that contains `first`. The result ends before another term or a
// configuration, and gaps are cut at its borders. It shares the bytes if no mark stands between
// the frames and no gap is cut. CorruptError with path, offset and index.
Frames gather(const SegmentBytes& bytes, std::uint64_t first, std::uint64_t end,
              std::uint64_t max_bytes);

// The frame at the beginning of `bytes`, which must be that of entry `index`, or of a gap that
// contains `index`. CorruptError.
Frame checked_frame(const SegmentBytes& bytes, std::uint64_t index);

}  // namespace copycat

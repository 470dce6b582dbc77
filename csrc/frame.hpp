// Frames and marks: encoding, checking and walking runs of them in memory. No files here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "errors.hpp"
#include "format.hpp"
#include "types.hpp"

namespace copycat {

// One frame, decoded. `payload` points into the bytes it was read from.
struct Frame {
    std::uint32_t crc = 0;
    std::uint32_t size = 0;
    std::uint64_t index = 0;
    std::uint64_t term = 0;
    std::uint64_t time_ms = 0;
    std::uint8_t kind = 0;
    std::uint8_t flags = 0;
    View payload;
    std::size_t total() const { return frame_size(size); }
    bool is_gap() const { return kind == static_cast<std::uint8_t>(Kind::gap); }
    // Of a gap whose shape was checked.
    GapBody gap() const { return load<GapBody>(payload.data()); }
    // One past the last index that it stands for.
    std::uint64_t end() const { return is_gap() ? gap().end : index + 1; }
    IndexSlot slot(std::uint64_t offset) const {
        return {static_cast<std::uint32_t>(offset), is_gap() ? size | slot_gap : size};
    }
};

enum class FrameFault : std::uint8_t {
    none = 0,
    cut,        // the bytes end inside it
    checksum,   // crc does not fit
    padding,    // a padding byte is not zero
    malformed,  // flags not zero, a kind that no batch may hold (mark, unknown), no gap at all
};
const char* describe(FrameFault fault);

// The frame at `offset` of `bytes`, all of it checked (bounds first, then checksum); throws
// nothing, reads nothing outside. `out` is filled as far as its header is inside the bytes.
FrameFault parse_frame(View bytes, std::size_t offset, Frame& out) noexcept;

// The frame at `offset` of bytes that were verified before: no checksum.
Frame frame_at(View bytes, std::size_t offset) noexcept;

// Verified frames of one span, which they and their gaps tile exactly; sharing their bytes.
struct Frames {
    Block block;
    Span span;
    bool may_have_gaps = false;
    std::size_t nbytes() const { return block.bytes.size(); }
    // Not fewer than there are.
    std::uint64_t count_max() const {
        return std::min<std::uint64_t>(span.end - span.first, nbytes() / sizeof(FrameHeader));
    }
};

// Everything a receiver must check: frames tile the bytes exactly, frames and gaps tile the
// span, every term is span.term, no mark. ProtocolError. Returns whether there is a gap.
bool verify_frames(View bytes, const Span& span);

// Where the last walk ended, so that slices taken in order walk each header once. Belongs to
// one thread at a time; {0, 0} knows nothing.
struct Cursor {
    std::uint64_t index = 0;
    std::size_t offset = 0;
};

// Where the frame that holds `index` begins, found by walking headers: its own first index and
// its offset (index may be span.end).
Cursor frame_of(const Frames& frames, std::uint64_t index, Cursor* cursor = nullptr);
// [first, end) of `frames`, sharing the bytes unless a gap must be cut. std::out_of_range
// outside the span.
Frames slice(const Frames& frames, std::uint64_t first, std::uint64_t end,
             Cursor* cursor = nullptr);

// One item of a batch. COMMAND: body is `u32 lengths[count]`, then the operations, and it
// becomes `count` frames; DATA: the same without envelopes; any other kind: count == 1 and body
// is the payload.
struct EncodeItem {
    std::uint8_t kind = 0;
    std::uint64_t session = 0;
    std::uint64_t first_sequence = 0;
    std::uint64_t acked_sequence = 0;
    std::uint32_t count = 0;
    View body;
};

// std::invalid_argument unless the lengths and the total fit exactly; TooLargeError when one
// operation is longer than max_entry_size.
void check_commands(View body, std::uint64_t count, std::uint64_t max_entry_size);

// All items as frames, in one pass into one buffer of exactly the right size.
Frames encode_batch(std::uint64_t term, std::uint64_t first, std::uint64_t time_ms,
                    std::span<const EncodeItem> items);

// One gap as a batch (C3). std::invalid_argument for an empty one.
Frames encode_gap(const Span& span, std::uint64_t time_ms, std::uint64_t valid_from);

// Entries that the executor takes in one step (copycat.types.Run): its first frame, and for
// COMMAND how many frames of the same session with consecutive sequences follow on. A gap has
// none: first_sequence is its end and acked its valid_from.
struct RunPart {
    std::uint64_t first_index = 0;
    std::uint64_t time_ms = 0;
    std::uint64_t session = 0;
    std::uint64_t first_sequence = 0;
    std::uint64_t acked = 0;
    std::uint32_t count = 0;
    std::uint8_t kind = 0;
    std::size_t first_payload = 0;  // position in Runs::payloads
};
struct Runs {
    std::vector<RunPart> parts;
    std::vector<View> payloads;  // operations without envelopes
};
// [first, end) cut to runs. A command too short for its envelope: ProtocolError.
Runs cut_runs(const Frames& frames, std::uint64_t first, std::uint64_t end,
              Cursor* cursor = nullptr);

// A mark, decoded (C5, C6).
struct Mark {
    std::uint32_t size = 0;
    std::uint64_t first_index = 0;
    std::uint64_t durable_upto = 0;
    std::uint32_t frames_hash = 0;
    std::uint8_t flags = 0;
};
inline constexpr std::size_t mark_size = sizeof(MarkBlock);

// CRC32C over the crc fields of the frames, each of which covers its own frame.
std::uint32_t frames_hash(View frames);
// The 32 bytes of a mark for this place and no other. `into` has mark_size bytes.
void encode_mark(const Mark& mark, const Uuid& uuid, std::uint64_t file_offset, MutableView into);
// True when the bytes at `offset` of `bytes` are a mark of this file at `file_offset`.
bool parse_mark(View bytes, std::size_t offset, const Uuid& uuid, std::uint64_t file_offset,
                Mark& out) noexcept;

}  // namespace copycat

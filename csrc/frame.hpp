// Frames and marks in memory: encodes, checks and walks them. Nothing here uses files.
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

// A decoded frame. `payload` points into the bytes that were decoded.
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
    // The payload of a gap that was checked.
    GapBody gap() const { return load<GapBody>(payload.data()); }
    // One past the last index that the frame stands for.
    std::uint64_t end() const { return is_gap() ? gap().end : index + 1; }
    IndexSlot slot(std::uint64_t offset) const {
        return {static_cast<std::uint32_t>(offset), is_gap() ? size | slot_gap : size};
    }
};

enum class FrameFault : std::uint8_t {
    none = 0,
    cut,        // the bytes end inside the frame
    checksum,   // crc does not fit
    padding,    // a padding byte is not zero
    malformed,  // flags not zero, a kind that no batch may contain, or the payload of no gap
};
const char* describe(FrameFault fault);

// Decodes the frame at `offset` of `bytes`, and checks all of it: bounds first, then the checksum.
// Reads nothing outside of `bytes`. `out` is filled if the header is inside them.
FrameFault parse_frame(View bytes, std::size_t offset, Frame& out) noexcept;

// Decodes the frame at `offset` of bytes that were verified before, without its checksum.
Frame frame_at(View bytes, std::size_t offset) noexcept;

// Verified frames that cover one span exactly, gaps included. Copies share the bytes.
struct Frames {
    Block block;
    Span span;
    bool may_have_gaps = false;
    std::size_t nbytes() const { return block.bytes.size(); }
    // An upper bound of the number of frames.
    std::uint64_t count_max() const {
        return std::min<std::uint64_t>(span.end - span.first, nbytes() / sizeof(FrameHeader));
    }
};

// What a receiver checks: frames fill the bytes exactly, frames and gaps cover the span exactly,
// every term is span.term, and there is no mark; else ProtocolError. Returns whether there is a
// gap.
bool verify_frames(View bytes, const Span& span);

// Where the last walk over some frames ended, so that slices in order read each header once. For
// one thread at a time; {0, 0} is a new one.
struct Cursor {
    std::uint64_t index = 0;
    std::size_t offset = 0;
};

// Where the frame that contains `index` begins: its first index and its offset. `index` may be
// span.end.
Cursor frame_of(const Frames& frames, std::uint64_t index, Cursor* cursor = nullptr);
// The part [first, end) of `frames`, which shares the bytes unless a gap must be cut.
// std::out_of_range outside of the span.
Frames slice(const Frames& frames, std::uint64_t first, std::uint64_t end,
             Cursor* cursor = nullptr);

// One item of a batch. A COMMAND becomes `count` frames: its body is `u32 lengths[count]`, then
// the operations. DATA is the same without envelopes. For any other kind count is 1, and the body
// is the payload.
struct EncodeItem {
    std::uint8_t kind = 0;
    std::uint64_t session = 0;
    std::uint64_t first_sequence = 0;
    std::uint64_t acked_sequence = 0;
    std::uint32_t count = 0;
    View body;
};

// Checks the body of a COMMAND: std::invalid_argument unless the lengths add up to the rest of the
// body; TooLargeError when an operation is longer than max_entry_size.
void check_commands(View body, std::uint64_t count, std::uint64_t max_entry_size);

// Encodes all items as frames, in one pass, into one buffer of exactly their size.
Frames encode_batch(std::uint64_t term, std::uint64_t first, std::uint64_t time_ms,
                    std::span<const EncodeItem> items);

// Encodes one gap as a batch (C3). std::invalid_argument for an empty span.
Frames encode_gap(const Span& span, std::uint64_t time_ms, std::uint64_t valid_from);

// A run: entries that the executor applies in one step (copycat.types.Run). A run of COMMAND
// entries has one session and consecutive sequences; any other run has one entry. A gap is a run
// with count 0, whose end is in first_sequence and whose valid_from is in acked.
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
// Divides [first, end) into runs. ProtocolError for a command that is shorter than its envelope.
Runs cut_runs(const Frames& frames, std::uint64_t first, std::uint64_t end,
              Cursor* cursor = nullptr);

// A decoded mark (C5, C6).
struct Mark {
    std::uint32_t size = 0;
    std::uint64_t first_index = 0;
    std::uint64_t durable_upto = 0;
    std::uint32_t frames_hash = 0;
    std::uint8_t flags = 0;
};
inline constexpr std::size_t mark_size = sizeof(MarkBlock);

// CRC32C over the crc fields of all frames; each of these covers its own frame.
std::uint32_t frames_hash(View frames);
// Encodes a mark, which is valid only at this offset of this file. `into` has mark_size bytes.
void encode_mark(const Mark& mark, const Uuid& uuid, std::uint64_t file_offset, MutableView into);
// True when the bytes at `offset` of `bytes` are a mark that is valid at `file_offset` of this
// file.
bool parse_mark(View bytes, std::size_t offset, const Uuid& uuid, std::uint64_t file_offset,
                Mark& out) noexcept;

}  // namespace copycat

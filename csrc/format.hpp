// Every byte this log writes to a disk or a wire, once for reader and writer.
// All integers are little-endian; all structures are copied with memcpy, never cast.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "types.hpp"

namespace copycat {

static_assert(std::endian::native == std::endian::little, "copycat's formats are little-endian");

inline constexpr std::uint32_t format_version = 2;  // 2: gaps
// 3: packed segments. Of them, and of a manifest that names one, alone: what a log without them
// writes is read by builds that do not know them.
inline constexpr std::uint32_t packed_format_version = 3;
inline constexpr std::size_t frame_alignment = 8;
// No log counts this far; every sum of indexes stays inside 64 bits.
inline constexpr std::uint64_t max_index = std::uint64_t{1} << 62;
inline constexpr std::uint64_t max_time_ms = (std::uint64_t{1} << 48) - 1;
// Far above any max_entry_size; keeps every sum of sizes inside 32 bits of a segment.
inline constexpr std::uint32_t max_payload_size = std::uint32_t{1} << 30;

enum class Kind : std::uint8_t {
    command = 1,
    noop = 2,
    tick = 3,
    register_ = 4,
    keep_alive = 5,
    close = 6,
    expire = 7,
    incarnation = 8,
    configuration = 9,
    data = 10,
    mark = 14,
    gap = 15,
};

// What may stand in a batch beside gaps: everything but marks, which are local.
constexpr bool is_entry_kind(std::uint8_t kind) { return kind >= 1 && kind <= 10; }

// A frame: this header, then `size` bytes of payload, then zeros up to 8 bytes (C5).
// crc = CRC32C over bytes [4, 32 + size). The same bytes on every wire and disk.
struct FrameHeader {
    std::uint32_t crc;
    std::uint32_t size;
    std::uint64_t index;
    std::uint64_t term;
    std::uint8_t time_ms[6];
    std::uint8_t kind;
    std::uint8_t flags;
};
static_assert(sizeof(FrameHeader) == 32 && offsetof(FrameHeader, time_ms) == 24);
static_assert(offsetof(FrameHeader, kind) == 30 && offsetof(FrameHeader, flags) == 31);

// Before the operation's bytes in the payload of a COMMAND.
struct Envelope {
    std::uint64_t session;
    std::uint64_t sequence;
    // sequence - acknowledged sequence, saturating
    std::uint32_t distance;
};
inline constexpr std::size_t envelope_size = 20;
static_assert(offsetof(Envelope, sequence) == 8 && offsetof(Envelope, distance) == 16);

// The payload of a GAP: its frame stands for every index from the header's on to `end`, all of
// the header's term, and its time is that of the last of them (C3, C22).
struct GapBody {
    std::uint64_t end;
    std::uint64_t valid_from;
};
static_assert(sizeof(GapBody) == 16);

// A mark: local to one file, before each append (C5, C6). Its crc covers bytes [4, 32), then
// the segment's uuid, then the mark's own offset in the file (u64); neither is stored.
struct MarkBlock {
    std::uint32_t crc;
    std::uint32_t size;  // bytes of the frames right after it that it covers
    std::uint64_t first_index;
    std::uint64_t durable_upto;
    std::uint32_t frames_hash;
    std::uint16_t zero;
    std::uint8_t kind;
    std::uint8_t flags;
};
static_assert(sizeof(MarkBlock) == 32 && offsetof(MarkBlock, frames_hash) == 24);
static_assert(offsetof(MarkBlock, kind) == offsetof(FrameHeader, kind));
inline constexpr std::uint8_t mark_flag_close = 1;  // a clean stop (C7); covers nothing
inline constexpr std::uint8_t mark_flag_idle = 2;   // carries durable_upto alone

// The first block of a segment. crc over [16, 64). Records begin at segment_data_offset, so
// that no append shares a block with the header.
struct SegmentHeader {
    std::uint64_t magic;
    std::uint32_t format_version;
    std::uint32_t crc;
    std::uint8_t uuid[16];
    std::uint64_t id;
    std::uint32_t version;
    std::uint32_t max_entries;
    std::uint64_t first_index;
    std::uint64_t max_size;
};
static_assert(sizeof(SegmentHeader) == 64 && offsetof(SegmentHeader, first_index) == 48);
inline constexpr std::uint64_t segment_magic = 0x474553'59504f43;  // "COPYSEG\0"
inline constexpr std::size_t segment_data_offset = 4096;
inline constexpr std::uint64_t max_file_size = 0xffffffff;  // slots hold 32-bit offsets

// A sealed index file: this header, `runs` TermRunRow, `count` IndexSlot, one a record; and when
// some record is a gap of more than one index, `count` u32: where each record starts, from
// first_index on. A cache of the segment, rebuilt at will. crc over [16, 88 + 16 * runs):
// what open() reads of a sealed segment; slots_crc over the rest: checked at its first use.
struct IndexHeader {
    std::uint64_t magic;
    std::uint32_t format_version;
    std::uint32_t crc;
    std::uint8_t uuid[16];
    std::uint64_t id;
    std::uint32_t version;
    std::uint32_t runs;
    std::uint64_t first_index;
    std::uint64_t end;         // one past the last
    std::uint64_t valid_from;  // the largest of its gaps (C22)
    std::uint64_t count;
    std::uint32_t slots_crc;
    std::uint32_t flags;
};
static_assert(sizeof(IndexHeader) == 88);
inline constexpr std::uint32_t index_flag_sparse = 1;
inline constexpr std::uint64_t max_record_start = 0xffffffff;    // starts have 32 bits
inline constexpr std::uint64_t index_magic = 0x584449'59504f43;  // "COPYIDX\0"

struct TermRunRow {
    std::uint64_t term;
    std::uint64_t first;
};
inline constexpr std::uint32_t slot_gap = std::uint32_t{1} << 31;
struct IndexSlot {
    std::uint32_t offset;  // of the frame in the segment file
    std::uint32_t size;    // of its payload; slot_gap is set when it is a gap
    bool is_gap() const { return (size & slot_gap) != 0; }
    inline std::uint64_t end() const;  // of the frame in the file
};
static_assert(sizeof(TermRunRow) == 16 && sizeof(IndexSlot) == 8);

// Which files are the log: this header, then `rows` ManifestRow; replaced whole (C8).
// crc over [16, end of file).
struct ManifestHeader {
    std::uint64_t magic;
    std::uint32_t format_version;
    std::uint32_t crc;
    std::uint64_t generation;
    std::uint64_t next_id;
    std::uint32_t rows;
    std::uint32_t zero;
};
static_assert(sizeof(ManifestHeader) == 40);
inline constexpr std::uint64_t manifest_magic = 0x4e414d'59504f43;  // "COPYMAN\0"

// One segment. A sealed row outranks what the file holds (C8): entries above last_index and
// bytes from end_offset on are not part of the log. Unsealed (the tail, always the last row):
// last_index and end_offset say nothing and are zero.
struct ManifestRow {
    std::uint8_t uuid[16];
    std::uint64_t id;
    std::uint32_t version;
    std::uint32_t flags;
    std::uint64_t first_index;
    std::uint64_t last_index;
    std::uint64_t end_offset;
    std::uint64_t prev_term;   // of entry first_index - 1, which a trim may have dropped
    std::uint64_t valid_from;  // the largest of its gaps (C22)
};
static_assert(sizeof(ManifestRow) == 72);
inline constexpr std::uint32_t row_flag_sealed = 1;
inline constexpr std::uint32_t row_flag_packed = 2;

// A packed segment, which a compaction may leave: this header, blocks, and `blocks` PackedBlock
// at table_offset, where the file ends with them. Each block is LZ4, or the bytes themselves when
// it is as long as they are, of the next block_bytes bytes of the plain segment (its header
// too); no block stands for more than 64 KiB. crc over [16, 80); table_crc over the table; a
// block's crc over the segment's uuid, the block's number (u32), and its stored bytes.
struct PackedHeader {
    std::uint64_t magic;
    std::uint32_t format_version;
    std::uint32_t crc;
    std::uint8_t uuid[16];
    std::uint64_t id;
    std::uint32_t version;
    std::uint32_t block_bytes;
    std::uint64_t first_index;
    std::uint64_t plain_size;
    std::uint64_t table_offset;
    std::uint32_t blocks;
    std::uint32_t table_crc;
};
static_assert(sizeof(PackedHeader) == 80 && offsetof(PackedHeader, plain_size) == 56);
inline constexpr std::uint64_t packed_magic = 0x4b4150'59504f43;  // "COPYPAK\0"
struct PackedBlock {
    std::uint32_t offset;  // in the file
    std::uint32_t size;    // stored
    std::uint32_t crc;
};
static_assert(sizeof(PackedBlock) == 12);

// One of the two hard-state files, replaced whole (C9). crc over [16, 48).
struct HardStateBlock {
    std::uint64_t magic;
    std::uint32_t format_version;
    std::uint32_t crc;
    std::uint64_t generation;
    std::uint64_t term;
    std::uint8_t voted_for[16];  // little-endian, zero names nobody
};
static_assert(sizeof(HardStateBlock) == 48);
inline constexpr std::uint64_t hard_state_magic = 0x545348'59504f43;  // "COPYHST\0"

template <typename T>
T load(const std::uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <typename T>
void store(std::uint8_t* to, const T& value) {
    std::memcpy(to, &value, sizeof value);
}

constexpr std::size_t padded(std::size_t size) {
    return (size + frame_alignment - 1) & ~(frame_alignment - 1);
}

// Bytes of a whole frame with a payload of `size` bytes.
constexpr std::size_t frame_size(std::size_t size) { return padded(sizeof(FrameHeader) + size); }

std::uint64_t IndexSlot::end() const { return offset + frame_size(size & ~slot_gap); }

inline std::uint64_t load_time(const std::uint8_t* from) {
    std::uint64_t value = 0;
    std::memcpy(&value, from, 6);
    return value;
}

inline void store_time(std::uint8_t* to, std::uint64_t time_ms) { std::memcpy(to, &time_ms, 6); }

}  // namespace copycat

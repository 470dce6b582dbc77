// The formats of all bytes that a log writes to a disk or a wire, used by readers and writers.
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
// 3: packed segments. Only packed segments, and manifests that name one, carry this version, so
// builds that do not know packed segments read every log that has none.
inline constexpr std::uint32_t packed_format_version = 3;
inline constexpr std::size_t frame_alignment = 8;
// No index of a log reaches this, so no sum of two indexes overflows 64 bits.
inline constexpr std::uint64_t max_index = std::uint64_t{1} << 62;
inline constexpr std::uint64_t max_time_ms = (std::uint64_t{1} << 48) - 1;
// Far above any max_entry_size, and small enough that sums of sizes within a segment fit 32 bits.
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
    availability = 11,
    mark = 14,
    gap = 15,
};

// The kinds that a batch may contain beside gaps: all but marks, which are local to one file.
constexpr bool is_entry_kind(std::uint8_t kind) { return kind >= 1 && kind <= 11; }

// A frame: this header, then `size` bytes of payload, then zeros up to 8 bytes (C5).
// crc = CRC32C over bytes [4, 32 + size). A frame has the same bytes on every wire and disk.
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

// Stands before the operation's bytes in the payload of a COMMAND.
struct Envelope {
    std::uint64_t session;
    std::uint64_t sequence;
    // sequence - acknowledged sequence, saturating
    std::uint32_t distance;
};
inline constexpr std::size_t envelope_size = 20;
static_assert(offsetof(Envelope, sequence) == 8 && offsetof(Envelope, distance) == 16);

// The payload of a GAP. Its frame stands for every index from the header's on, below `end`. All of
// these entries had the header's term, and the header's time is that of the last one (C3, C22).
struct GapBody {
    std::uint64_t end;
    std::uint64_t valid_from;
};
static_assert(sizeof(GapBody) == 16);

// A mark: local to one file, written before each append (C5, C6). Its crc covers bytes [4, 32),
// then the segment's uuid, then the mark's own offset in the file (u64); the mark stores neither
// uuid nor offset.
struct MarkBlock {
    std::uint32_t crc;
    std::uint32_t size;  // bytes of the frames that follow this mark and that it covers
    std::uint64_t first_index;
    std::uint64_t durable_upto;
    std::uint32_t frames_hash;
    std::uint16_t zero;
    std::uint8_t kind;
    std::uint8_t flags;
};
static_assert(sizeof(MarkBlock) == 32 && offsetof(MarkBlock, frames_hash) == 24);
static_assert(offsetof(MarkBlock, kind) == offsetof(FrameHeader, kind));
inline constexpr std::uint8_t mark_flag_close = 1;  // a clean stop (C7); covers no frames
inline constexpr std::uint8_t mark_flag_idle = 2;   // covers no frames, only tells durable_upto

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

// The index file of a segment: this header, `runs` TermRunRow, and `count` IndexSlot, one for each
// record. If a record is a gap of more than one index, `count` u32 follow: the first index of
// each record, relative to first_index. The file is a cache and can be rebuilt from the segment.
// crc covers [16, 88 + 16 * runs), which open() reads; slots_crc covers the rest, and is checked
// when that is first used.
struct IndexHeader {
    std::uint64_t magic;
    std::uint32_t format_version;
    std::uint32_t crc;
    std::uint8_t uuid[16];
    std::uint64_t id;
    std::uint32_t version;
    std::uint32_t runs;
    std::uint64_t first_index;
    std::uint64_t end;         // one past the last index
    std::uint64_t valid_from;  // the largest of all gaps in the segment (C22)
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

// The manifest names the files of the log: this header, then `rows` ManifestRow. The file is
// replaced as a whole (C8).
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

// One segment. For a sealed one the row decides, whatever its file holds (C8): entries above
// last_index and bytes from end_offset on are not part of the log. In the row of the tail, which
// is the last one and not sealed, last_index and end_offset are zero and have no meaning.
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

// A packed segment, which a compaction may write: this header, the blocks, and at table_offset, as
// the end of the file, `blocks` PackedBlock. Each block holds the next block_bytes bytes of the
// plain segment, which includes its header: compressed with LZ4, or as they are if the block has
// as many bytes as they. A block stands for at most 64 KiB. crc covers [16, 80), table_crc the
// table; the crc of a block covers the segment's uuid, the block's number (u32), and its stored
// bytes.
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
    std::uint32_t size;    // stored bytes
    std::uint32_t crc;
};
static_assert(sizeof(PackedBlock) == 12);

// One of the two hard-state files, which is replaced as a whole (C9). crc covers [16, 48).
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

// The size of a frame, with header and padding, whose payload has `size` bytes.
constexpr std::size_t frame_size(std::size_t size) { return padded(sizeof(FrameHeader) + size); }

std::uint64_t IndexSlot::end() const { return offset + frame_size(size & ~slot_gap); }

inline std::uint64_t load_time(const std::uint8_t* from) {
    std::uint64_t value = 0;
    std::memcpy(&value, from, 6);
    return value;
}

inline void store_time(std::uint8_t* to, std::uint64_t time_ms) { std::memcpy(to, &time_ms, 6); }

}  // namespace copycat

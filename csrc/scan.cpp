#include "scan.hpp"

#include <algorithm>

#include "crc32c.hpp"
#include "sequential_reader.hpp"
#include "slot_index.hpp"

namespace copycat {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t kind_at = offsetof(MarkBlock, kind);
constexpr std::size_t crc_from = 16;

bool is_zero(View bytes) {
    std::uint64_t bits = 0;
    std::size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) bits |= load<std::uint64_t>(bytes.data() + i);
    for (; i < bytes.size(); ++i) bits |= bytes[i];
    return bits == 0;
}

class Scanner {
public:
    Scanner(File& file, const Row& row, const std::string& path, std::uint64_t limit,
            RewriteThrottle* throttle)
        : reader_(file, throttle),
          marks_(file),
          row_(row),
          path_(path),
          limit_(limit),
          term_(row.prev_term),
          out_{.slots = Slots(row.first_index), .runs = {}} {}

    // Reads good records from the beginning on, and stops before the first bad one.
    void walk() {
        while (step()) {
        }
        if (at_ != group_end_) return;
        finish_group();
    }
    std::uint64_t expected() const { return out_.slots.end(); }
    Scan& result() { return out_; }

    [[noreturn]] void corrupt(const std::string& why) const {
        const auto offset = static_cast<std::int64_t>(out_.end_offset);
        throw CorruptError("entry " + std::to_string(expected()) + " is corrupt (" + path_ +
                               ", byte " + std::to_string(offset) + "): " + why,
                           path_, offset, expected());
    }

    // C6: searches the bytes behind the last good record for a mark which says that they were
    // durable; CorruptError then.
    void check_torn_tail() {
        const std::uint64_t from = out_.end_offset;
        std::uint64_t last_used = from;
        for (std::uint64_t page = from; page < limit_; page += page_bytes) {
            const View bytes = reader_.at(page, page_bytes);
            if (bytes.empty()) break;
            if (is_zero(bytes)) continue;
            last_used = page + last_not_zero(bytes) + 1;
            // Records are aligned to 8 bytes, and the kind is byte 30 of a record, so it stands at
            // 6 modulo 8.
            for (std::size_t i = kind_at % 8; i < bytes.size(); i += 8)
                if (bytes[i] == static_cast<std::uint8_t>(Kind::mark) &&
                    page + i >= from + kind_at)
                    check_mark(page + i - kind_at);
        }
        out_.torn_bytes = last_used - from;
    }

private:
    static std::size_t last_not_zero(View bytes) {
        std::size_t i = bytes.size();
        while (bytes[i - 1] == 0) --i;
        return i - 1;
    }

    // CorruptError if there is a mark at `offset` which says that the bad record was durable.
    void check_mark(std::uint64_t offset) {
        // Not `reader_`, since the caller uses a view of its bytes.
        const View bytes = marks_.at(offset, mark_size);
        Mark mark;
        if (bytes.size() < mark_size || !parse_mark(bytes, 0, row_.uuid, offset, mark)) return;
        if (mark.durable_upto >= expected())
            corrupt("a later mark says it was durable up to entry " +
                    std::to_string(mark.durable_upto));
    }

    bool step() {
        if (at_ + sizeof(FrameHeader) > limit_) return false;
        const View header = reader_.at(at_, sizeof(FrameHeader), expected());
        if (header.size() < sizeof(FrameHeader) || is_zero(header)) return false;
        if (header[kind_at] == static_cast<std::uint8_t>(Kind::mark)) return take_mark(header);
        return take_frame(header);
    }

    bool take_mark(View bytes) {
        Mark mark;
        if (!parse_mark(bytes, 0, row_.uuid, at_, mark)) return false;
        if (at_ != group_end_ || !finish_group()) return false;
        if (mark.first_index != expected() || mark.durable_upto >= expected()) return false;
        at_ += mark_size;
        out_.end_offset = at_;
        out_.durable_upto = std::max(out_.durable_upto, mark.durable_upto);
        out_.is_closed = (mark.flags & mark_flag_close) != 0;
        group_start_ = at_;
        group_end_ = at_ + mark.size;
        group_hash_ = mark.frames_hash;
        group_slots_ = out_.slots.count();
        group_runs_ = out_.runs.size();
        hash_ = 0;
        return true;
    }

    bool take_frame(View header) {
        const std::uint32_t size = load<FrameHeader>(header.data()).size;
        if (size > max_payload_size) return false;
        const std::size_t total = frame_size(size);
        if (at_ + total > group_end_ || at_ + total > limit_) return false;
        Frame frame;
        if (parse_frame(reader_.at(at_, total, expected()), 0, frame) != FrameFault::none)
            return false;
        if (frame.index != expected() || frame.term < term_) return false;
        term_ = frame.term;
        extend_runs(out_.runs, frame.term, frame.index);
        if (frame.index - row_.first_index > max_record_start) return false;
        out_.slots.push(frame.slot(at_), frame.end());
        if (frame.is_gap()) out_.valid_from = std::max(out_.valid_from, frame.gap().valid_from);
        std::uint8_t crc[4];
        store(crc, frame.crc);
        hash_ = crc32c(View(crc), hash_);
        at_ += total;
        out_.end_offset = at_;
        return true;
    }

    // If these are not the frames that the mark was written for, the group is bad.
    bool finish_group() {
        if (group_end_ == group_start_ || hash_ == group_hash_) return true;
        out_.slots.cut(group_slots_);
        out_.runs.resize(group_runs_);
        out_.end_offset = group_start_;
        at_ = group_start_;
        return false;
    }

    SequentialReader reader_;
    SequentialReader marks_;
    const Row& row_;
    const std::string& path_;
    std::uint64_t limit_;
    std::uint64_t term_;
    Scan out_;
    std::uint64_t at_ = segment_data_offset;
    std::uint64_t group_start_ = segment_data_offset;
    std::uint64_t group_end_ = segment_data_offset;
    std::uint32_t group_hash_ = 0;
    std::uint32_t hash_ = 0;
    std::size_t group_slots_ = 0;
    std::size_t group_runs_ = 0;
};

}  // namespace

std::uint64_t check_header(File& file, const Row& row, const std::string& path) {
    std::uint8_t bytes[sizeof(SegmentHeader)];
    const auto corrupt = [&](const std::string& what) {
        throw CorruptError("segment " + path + " is corrupt: " + what, path, 0, row.first_index);
    };
    if (file.pread(0, MutableView(bytes)) < sizeof bytes) corrupt("it is shorter than its header");
    const auto header = load<SegmentHeader>(bytes);
    if (header.magic != segment_magic) corrupt("wrong magic number");
    if (header.format_version != format_version)
        throw FormatError("segment " + path + " has format version " +
                              std::to_string(header.format_version) + "; this build reads " +
                              std::to_string(format_version),
                          path, 8);
    if (crc32c(View(bytes).subspan(crc_from)) != header.crc)
        corrupt("its header's checksum does not fit");
    if (header.max_size > max_file_size) corrupt("it is sized beyond 32 bits");
    if (!std::equal(row.uuid.begin(), row.uuid.end(), header.uuid) || header.id != row.id ||
        header.version != row.version || header.first_index != row.first_index)
        corrupt("it is not the segment that the manifest names");
    const std::uint64_t least = row.sealed ? row.end_offset : header.max_size;
    const std::uint64_t size = file.size();
    if (size < least)
        corrupt("it has " + std::to_string(size) + " bytes of at least " + std::to_string(least));
    return header.max_size;
}

Scan scan_sealed(File& file, const Row& row, const std::string& path, RewriteThrottle* throttle) {
    Scanner scanner(file, row, path, row.end_offset, throttle);
    scanner.walk();
    Scan& scan = scanner.result();
    // A truncation may have ended the segment inside its last gap.
    const SlotView view = scan.slots.view();
    const bool reaches = view.count() > 0 && view.index_of(view.count() - 1) <= row.last_index &&
                         view.end > row.last_index;
    const bool is_over = view.end > row.last_index + 1 && !view.slots.back().is_gap();
    if (!reaches || is_over || scan.end_offset != row.end_offset)
        scanner.corrupt("its segment is sealed up to entry " + std::to_string(row.last_index));
    return std::move(scan);
}

Scan scan_tail(File& file, const Row& row, const std::string& path) {
    Scanner scanner(file, row, path, std::min(file.size(), max_file_size), nullptr);
    scanner.walk();
    scanner.check_torn_tail();
    Scan& scan = scanner.result();
    scan.is_closed = scan.is_closed && scan.torn_bytes == 0;
    return std::move(scan);
}

bool find_close_mark(File& file, const Row& row, std::uint64_t offset, std::uint64_t last_index,
                     std::uint64_t& end) {
    SequentialReader reader(file);
    bool is_closed = false;
    for (end = offset;; end += mark_size) {
        const View bytes = reader.at(end, mark_size);
        if (bytes.size() < mark_size || is_zero(bytes)) return is_closed;
        Mark mark;
        if (!parse_mark(bytes, 0, row.uuid, end, mark) || mark.size != 0) return false;
        if (mark.first_index != last_index + 1) return false;
        is_closed = (mark.flags & mark_flag_close) != 0 && mark.durable_upto == last_index;
    }
}

}  // namespace copycat

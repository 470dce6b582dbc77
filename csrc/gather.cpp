#include "gather.hpp"

#include <algorithm>

namespace copycat {
namespace {

// Frames of at least so many bytes are returned without a copy although a mark follows; shorter
// ones are copied together.
constexpr std::size_t shared_run_min = std::size_t{64} << 10;

[[noreturn]] void corrupt(const SegmentBytes& bytes, std::size_t at, std::uint64_t index,
                          const std::string& what) {
    const auto offset = static_cast<std::int64_t>(bytes.base + at);
    throw CorruptError("entry " + std::to_string(index) + " is corrupt: " + what + " (" +
                           bytes.path + ", byte " + std::to_string(offset) + ")",
                       bytes.path, offset, index);
}

bool stands_mark(View bytes, std::size_t at) {
    return at + mark_size <= bytes.size() &&
           bytes[at + offsetof(MarkBlock, kind)] == static_cast<std::uint8_t>(Kind::mark);
}

Frame frame_of(const SegmentBytes& bytes, std::size_t at, std::uint64_t index) {
    Frame frame;
    const FrameFault fault = parse_frame(bytes.block.bytes, at, frame);
    if (fault != FrameFault::none) corrupt(bytes, at, index, describe(fault));
    const bool is_inside = frame.is_gap() && frame.index < index && index < frame.end();
    if (frame.index != index && !(is_inside && at == 0))
        corrupt(bytes, at, index, "entry " + std::to_string(frame.index) + " is in its place");
    return frame;
}

// Neighbouring pieces of a block, which are copied together when there is more than one.
class Pieces {
public:
    void add(std::size_t at, std::size_t size) {
        if (pieces_.empty() || pieces_.back().first + pieces_.back().second != at)
            pieces_.emplace_back(at, 0);
        pieces_.back().second += size;
        total_ += size;
    }
    std::size_t total() const { return total_; }
    bool is_one() const { return pieces_.size() == 1; }
    Block joined(const Block& block) const {
        if (is_one()) return block.part(pieces_[0].first, pieces_[0].second);
        Bytes bytes;
        bytes.reserve(total_);
        for (const auto& [at, size] : pieces_) {
            const View piece = block.bytes.subspan(at, size);
            bytes.insert(bytes.end(), piece.begin(), piece.end());
        }
        return Block::own(std::move(bytes));
    }

private:
    std::vector<std::pair<std::size_t, std::size_t>> pieces_;
    std::size_t total_ = 0;
};

}  // namespace

Frame checked_frame(const SegmentBytes& bytes, std::uint64_t index) {
    return frame_of(bytes, 0, index);
}

Frames gather(const SegmentBytes& bytes, std::uint64_t first, std::uint64_t end,
              std::uint64_t max_bytes) {
    constexpr auto configuration = static_cast<std::uint8_t>(Kind::configuration);
    const View all = bytes.block.bytes;
    Pieces pieces;
    Span whole{0, first, first};
    std::uint64_t index = first;
    bool has_gap = false;
    std::size_t at = 0;
    while (index < end) {
        if (stands_mark(all, at)) {
            Mark mark;
            if (!parse_mark(all, at, bytes.uuid, bytes.base + at, mark))
                corrupt(bytes, at, index, "the mark before it is damaged");
            if (pieces.is_one() && pieces.total() >= shared_run_min) break;
            at += mark_size;
            continue;
        }
        if (index != first) {
            // Stop before the frame is checked: it may not be complete in these bytes.
            if (at + sizeof(FrameHeader) > all.size()) break;
            const std::uint64_t size = load<FrameHeader>(all.data() + at).size;
            if (pieces.total() + frame_size(size) > max_bytes) break;
        }
        const Frame frame = frame_of(bytes, at, index);
        if (index == first) whole = {frame.term, frame.index, first};
        if (frame.term != whole.term) break;
        if (frame.kind == configuration && index != first) break;
        pieces.add(at, frame.total());
        at += frame.total();
        index = frame.end();
        has_gap = has_gap || frame.is_gap();
        if (frame.kind == configuration) break;
    }
    whole.end = index;
    const Frames frames{pieces.joined(bytes.block), whole, has_gap};
    if (whole.first == first && whole.end <= end) return frames;
    return slice(frames, first, std::min(whole.end, end));
}

}  // namespace copycat

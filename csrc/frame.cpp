#include "frame.hpp"

#include <algorithm>
#include <limits>
#include <memory>

#include "crc32c.hpp"

namespace copycat {
namespace {

constexpr std::size_t header_size = sizeof(FrameHeader);
constexpr std::size_t size_offset = offsetof(FrameHeader, size);

std::string at_frame(std::uint64_t index, const char* what) {
    return "the frame of entry " + std::to_string(index) + " " + what;
}

// Writes headers, envelopes and payloads one after another into exactly enough memory.
class Writer {
public:
    Writer(std::uint8_t* to, std::uint64_t term, std::uint64_t first, std::uint64_t time_ms)
        : to_(to), term_(term), index_(first), time_ms_(time_ms) {}

    void frame(std::uint8_t kind, const Envelope* envelope, View body) {
        const std::size_t prefix = envelope != nullptr ? envelope_size : 0;
        FrameHeader header{};
        header.size = static_cast<std::uint32_t>(prefix + body.size());
        header.index = index_++;
        header.term = term_;
        store_time(header.time_ms, time_ms_);
        header.kind = kind;
        store(to_, header);
        std::uint8_t* payload = to_ + header_size;
        if (envelope != nullptr) std::memcpy(payload, envelope, envelope_size);
        if (!body.empty()) std::memcpy(payload + prefix, body.data(), body.size());
        const std::size_t used = header_size + header.size;
        const std::size_t total = frame_size(header.size);
        std::memset(to_ + used, 0, total - used);
        store(to_, crc32c(View(to_ + 4, used - 4)));
        to_ += total;
    }
    const std::uint8_t* position() const { return to_; }

private:
    std::uint8_t* to_;
    std::uint64_t term_;
    std::uint64_t index_;
    std::uint64_t time_ms_;
};

bool is_command(const EncodeItem& item) {
    return item.kind == static_cast<std::uint8_t>(Kind::command);
}

// COMMAND and DATA: the body is lengths, then bytes.
bool has_lengths(const EncodeItem& item) {
    return is_command(item) || item.kind == static_cast<std::uint8_t>(Kind::data);
}

void check_item(const EncodeItem& item) {
    if (!is_entry_kind(item.kind))
        throw std::invalid_argument("no entry has kind " + std::to_string(item.kind));
    if (!has_lengths(item)) {
        if (item.count != 1)
            throw std::invalid_argument("an entry that is no command has a count of 1, not " +
                                        std::to_string(item.count));
        if (item.body.size() > max_payload_size)
            throw TooLargeError("a payload is too large", item.body.size(), max_payload_size);
        return;
    }
    check_commands(item.body, item.count, max_payload_size - envelope_size);
    if (!is_command(item)) return;
    if (item.acked_sequence >= item.first_sequence)
        throw std::invalid_argument(
            "acknowledged sequence " + std::to_string(item.acked_sequence) +
            " is not below first sequence " + std::to_string(item.first_sequence));
    if (item.first_sequence > std::numeric_limits<std::uint64_t>::max() - item.count)
        throw std::invalid_argument("the sequences of a run leave 64 bits");
}

std::size_t encoded_size(const EncodeItem& item) {
    if (!has_lengths(item)) return frame_size(item.body.size());
    const std::size_t prefix = is_command(item) ? envelope_size : 0;
    std::size_t total = 0;
    for (std::uint32_t at = 0; at < item.count; ++at)
        total += frame_size(prefix + load<std::uint32_t>(item.body.data() + std::size_t{4} * at));
    return total;
}

void encode_run(Writer& writer, const EncodeItem& item) {
    std::size_t at = std::size_t{4} * item.count;
    for (std::uint32_t nth = 0; nth < item.count; ++nth) {
        const std::size_t length = load<std::uint32_t>(item.body.data() + std::size_t{4} * nth);
        const View operation = item.body.subspan(at, length);
        if (is_command(item)) {
            const std::uint64_t sequence = item.first_sequence + nth;
            const std::uint64_t distance = std::min<std::uint64_t>(
                sequence - item.acked_sequence, std::numeric_limits<std::uint32_t>::max());
            const Envelope envelope{item.session, sequence, static_cast<std::uint32_t>(distance)};
            writer.frame(item.kind, &envelope, operation);
        } else {
            writer.frame(item.kind, nullptr, operation);
        }
        at += length;
    }
}

Envelope envelope_of(const Frame& frame) {
    if (frame.size < envelope_size)
        throw ProtocolError(at_frame(frame.index, "is too short for its envelope"), -1,
                            frame.index);
    Envelope envelope{};
    std::memcpy(&envelope, frame.payload.data(), envelope_size);
    return envelope;
}

std::uint32_t mark_crc(const std::uint8_t* block, const Uuid& uuid, std::uint64_t file_offset) {
    std::uint8_t place[24];
    std::memcpy(place, uuid.data(), uuid.size());
    store(place + 16, file_offset);
    return crc32c(View(place, sizeof place), crc32c(View(block + 4, mark_size - 4)));
}

bool is_well_formed(const Frame& frame) {
    if (frame.flags != 0) return false;
    if (!frame.is_gap()) return is_entry_kind(frame.kind);
    if (frame.size != sizeof(GapBody)) return false;
    const GapBody body = frame.gap();
    return frame.index < body.end && body.end <= max_index && body.valid_from <= max_index;
}

// Appends the part [first, end) of the gap at `from` to `to`. The part gets the gap's time, which
// is that of the last entry, since no better one is known.
void append_gap(Bytes& to, const Frame& from, std::uint64_t first, std::uint64_t end) {
    const GapBody body{std::min(end, from.end()), from.gap().valid_from};
    const View payload(reinterpret_cast<const std::uint8_t*>(&body), sizeof body);
    const std::size_t at = to.size();
    to.resize(at + frame_size(sizeof body));
    Writer(to.data() + at, from.term, std::max(first, from.index), from.time_ms)
        .frame(static_cast<std::uint8_t>(Kind::gap), nullptr, payload);
}

// What a receiver checks of one frame beside its checksum.
void check_place(const Frame& frame, const Span& span, std::uint64_t index, std::size_t at) {
    const auto offset = static_cast<std::int64_t>(at);
    if (frame.index != index)
        throw ProtocolError("entry " + std::to_string(frame.index) + " stands where entry " +
                                std::to_string(index) + " belongs",
                            offset, index);
    if (frame.term != span.term)
        throw ProtocolError(at_frame(index, "is of another term than its batch"), offset, index);
    if (frame.kind == static_cast<std::uint8_t>(Kind::command) && frame.size < envelope_size)
        throw ProtocolError(at_frame(index, "is too short for its envelope"), offset, index);
    const bool configuration = frame.kind == static_cast<std::uint8_t>(Kind::configuration);
    if (configuration && span.end - span.first != 1)
        throw ProtocolError(at_frame(index, "is a configuration and must travel alone (C4)"),
                            offset, index);
}

}  // namespace

const char* describe(FrameFault fault) {
    switch (fault) {
        case FrameFault::none:
            return "is whole";
        case FrameFault::cut:
            return "is cut short";
        case FrameFault::checksum:
            return "has a wrong checksum";
        case FrameFault::padding:
            return "has padding that is not zero";
        case FrameFault::malformed:
            return "has flags, a kind or a gap that no batch may hold";
    }
    return "has an unknown fault";
}

Frame frame_at(View bytes, std::size_t offset) noexcept {
    const std::uint8_t* at = bytes.data() + offset;
    const auto header = load<FrameHeader>(at);
    return Frame{header.crc,
                 header.size,
                 header.index,
                 header.term,
                 load_time(header.time_ms),
                 header.kind,
                 header.flags,
                 View(at + header_size, header.size)};
}

FrameFault parse_frame(View bytes, std::size_t offset, Frame& out) noexcept {
    if (offset > bytes.size() || bytes.size() - offset < header_size) return FrameFault::cut;
    const std::uint8_t* at = bytes.data() + offset;
    const auto size = load<std::uint32_t>(at + size_offset);
    out = frame_at(bytes, offset);
    if (size > max_payload_size || frame_size(size) > bytes.size() - offset) {
        out.payload = View();  // never a view that reaches beyond the bytes
        return FrameFault::cut;
    }
    const std::size_t used = header_size + size;
    if (crc32c(View(at + 4, used - 4)) != out.crc) return FrameFault::checksum;
    for (std::size_t pad = used; pad < frame_size(size); ++pad)
        if (at[pad] != 0) return FrameFault::padding;
    return is_well_formed(out) ? FrameFault::none : FrameFault::malformed;
}

bool verify_frames(View bytes, const Span& span) {
    if (span.first == 0 || span.end < span.first)
        throw ProtocolError("a span from " + std::to_string(span.first) + " to " +
                                std::to_string(span.end) + " is none",
                            0, span.first);
    std::size_t at = 0;
    bool has_gap = false;
    for (std::uint64_t index = span.first; index < span.end;) {
        Frame frame;
        const FrameFault fault = parse_frame(bytes, at, frame);
        if (fault != FrameFault::none)
            throw ProtocolError(at_frame(index, describe(fault)), static_cast<std::int64_t>(at),
                                index);
        check_place(frame, span, index, at);
        at += frame.total();
        index = frame.end();
        has_gap = has_gap || frame.is_gap();
    }
    if (at != bytes.size())
        throw ProtocolError(std::to_string(bytes.size() - at) + " bytes follow the last frame",
                            static_cast<std::int64_t>(at), span.end);
    return has_gap;
}

Cursor frame_of(const Frames& frames, std::uint64_t index, Cursor* cursor) {
    if (index < frames.span.first || index > frames.span.end)
        throw std::out_of_range("entry " + std::to_string(index) + " is not in [" +
                                std::to_string(frames.span.first) + ", " +
                                std::to_string(frames.span.end) + ")");
    if (index == frames.span.end) return {index, frames.nbytes()};
    Cursor at{frames.span.first, 0};
    if (cursor != nullptr && cursor->index >= at.index && cursor->index <= index) at = *cursor;
    while (at.index < index) {
        const Frame frame = frame_at(frames.block.bytes, at.offset);
        const std::uint64_t end = frame.end();
        if (end > index) break;
        at = {end, at.offset + frame.total()};
    }
    if (cursor != nullptr) *cursor = at;
    return at;
}

Frames slice(const Frames& frames, std::uint64_t first, std::uint64_t end, Cursor* cursor) {
    if (first > end) throw std::out_of_range("a slice ends before it begins");
    const View all = frames.block.bytes;
    const Span span{frames.span.term, first, end};
    Cursor from = frame_of(frames, first, cursor);
    const Cursor to = frame_of(frames, end, cursor);
    if (first == end) return Frames{frames.block.part(0, 0), span, false};
    if (from.index == first && to.index == end)
        return Frames{frames.block.part(from.offset, to.offset - from.offset), span,
                      frames.may_have_gaps};
    Bytes bytes;
    if (from.index < first) {
        const Frame head = frame_at(all, from.offset);
        append_gap(bytes, head, first, end);
        from = {head.end(), from.offset + head.total()};
    }
    if (from.offset < to.offset)
        bytes.insert(bytes.end(), all.begin() + static_cast<std::ptrdiff_t>(from.offset),
                     all.begin() + static_cast<std::ptrdiff_t>(to.offset));
    if (from.index <= to.index && to.index < end)
        append_gap(bytes, frame_at(all, to.offset), first, end);
    return Frames{Block::own(std::move(bytes)), span, true};
}

Frames encode_gap(const Span& span, std::uint64_t time_ms, std::uint64_t valid_from) {
    if (span.first == 0 || span.end <= span.first || span.end > max_index ||
        valid_from > max_index)
        throw std::invalid_argument("no gap from " + std::to_string(span.first) + " to " +
                                    std::to_string(span.end));
    if (time_ms > max_time_ms) throw std::invalid_argument("a time of more than 48 bits");
    const GapBody body{span.end, valid_from};
    const View payload(reinterpret_cast<const std::uint8_t*>(&body), sizeof body);
    Bytes bytes(frame_size(sizeof body));
    Writer(bytes.data(), span.term, span.first, time_ms)
        .frame(static_cast<std::uint8_t>(Kind::gap), nullptr, payload);
    return Frames{Block::own(std::move(bytes)), span, true};
}

void check_commands(View body, std::uint64_t count, std::uint64_t max_entry_size) {
    if (count == 0) throw std::invalid_argument("a run of no commands");
    if (count > body.size() / 4)
        throw std::invalid_argument(std::to_string(body.size()) + " bytes cannot hold " +
                                    std::to_string(count) + " lengths");
    std::uint64_t total = 4 * count;
    std::uint64_t longest = 0;
    for (std::size_t at = 0; at < 4 * count; at += 4) {
        const auto length = load<std::uint32_t>(body.data() + at);
        total += length;
        longest = std::max<std::uint64_t>(longest, length);
    }
    if (longest > max_entry_size)
        throw TooLargeError("an operation of " + std::to_string(longest) +
                                " bytes is above the limit of " + std::to_string(max_entry_size),
                            longest, max_entry_size);
    if (total != body.size())
        throw std::invalid_argument("lengths and operations take " + std::to_string(total) +
                                    " bytes, the body has " + std::to_string(body.size()));
}

Frames encode_batch(std::uint64_t term, std::uint64_t first, std::uint64_t time_ms,
                    std::span<const EncodeItem> items) {
    if (first == 0) throw std::invalid_argument("the first index of a log is 1");
    if (time_ms > max_time_ms) throw std::invalid_argument("a time of more than 48 bits");
    std::size_t total = 0;
    std::uint64_t count = 0;
    for (const EncodeItem& item : items) {
        check_item(item);
        total += encoded_size(item);
        count += item.count;
    }
    constexpr std::size_t limit = std::numeric_limits<std::uint32_t>::max();
    if (total > limit) throw TooLargeError("a batch is too large", total, limit);
    for (const EncodeItem& item : items)
        if (item.kind == static_cast<std::uint8_t>(Kind::configuration) && count != 1)
            throw std::invalid_argument("a configuration travels alone (C4)");
    // no vector, which would fill the memory with zeros first
    std::shared_ptr<std::uint8_t[]> buffer(new std::uint8_t[total]);
    Writer writer(buffer.get(), term, first, time_ms);
    for (const EncodeItem& item : items) {
        if (has_lengths(item))
            encode_run(writer, item);
        else
            writer.frame(item.kind, nullptr, item.body);
    }
    require(writer.position() == buffer.get() + total, "encode_batch filled its buffer exactly");
    const View bytes(buffer.get(), total);
    return Frames{Block{std::move(buffer), bytes}, Span{term, first, first + count}};
}

Runs cut_runs(const Frames& frames, std::uint64_t first, std::uint64_t end, Cursor* cursor) {
    const View bytes = frames.block.bytes;
    if (first > end || end > frames.span.end)
        throw std::out_of_range("no entries [" + std::to_string(first) + ", " +
                                std::to_string(end) + ") in this batch");
    Cursor at = frame_of(frames, first, cursor);
    Runs runs;
    runs.payloads.reserve(std::min<std::uint64_t>(end - first, frames.count_max()));
    std::uint64_t next = first;
    for (std::uint64_t index = first; index < end; index = next) {
        const Frame frame = frame_at(bytes, at.offset);
        next = frame.end();
        if (next <= end) at = {next, at.offset + frame.total()};
        RunPart part{index, frame.time_ms, 0, 0, 0, 1, frame.kind, runs.payloads.size()};
        if (frame.is_gap()) {
            part.first_sequence = std::min(next, end);
            part.acked = frame.gap().valid_from;
            part.count = 0;
            runs.parts.push_back(part);
            continue;
        }
        if (frame.kind != static_cast<std::uint8_t>(Kind::command)) {
            runs.payloads.push_back(frame.payload);
            runs.parts.push_back(part);
            continue;
        }
        const Envelope envelope = envelope_of(frame);
        runs.payloads.push_back(frame.payload.subspan(envelope_size));
        const std::uint64_t acked =
            envelope.sequence - std::min<std::uint64_t>(envelope.sequence, envelope.distance);
        if (!runs.parts.empty()) {
            RunPart& last = runs.parts.back();
            // a run has one time: members may divide entries into runs differently
            if (last.kind == frame.kind && last.session == envelope.session &&
                last.first_sequence + last.count == envelope.sequence &&
                last.time_ms == frame.time_ms) {
                ++last.count;
                last.acked =
                    std::max(last.acked, acked);  // a run that was sent again may acknowledge less
                continue;
            }
        }
        part.session = envelope.session;
        part.first_sequence = envelope.sequence;
        part.acked = acked;
        runs.parts.push_back(part);
    }
    if (cursor != nullptr) *cursor = at;
    return runs;
}

std::uint32_t frames_hash(View frames) {
    std::uint32_t hash = 0;
    std::uint8_t crcs[256];
    std::size_t filled = 0;
    for (std::size_t at = 0; at < frames.size();) {
        std::memcpy(crcs + filled, frames.data() + at, 4);
        filled += 4;
        if (filled == sizeof crcs) {
            hash = crc32c(View(crcs, filled), hash);
            filled = 0;
        }
        at += frame_size(load<std::uint32_t>(frames.data() + at + size_offset));
    }
    return crc32c(View(crcs, filled), hash);
}

void encode_mark(const Mark& mark, const Uuid& uuid, std::uint64_t file_offset, MutableView into) {
    require(into.size() >= mark_size, "a mark has 32 bytes");
    MarkBlock block{};
    block.size = mark.size;
    block.first_index = mark.first_index;
    block.durable_upto = mark.durable_upto;
    block.frames_hash = mark.frames_hash;
    block.kind = static_cast<std::uint8_t>(Kind::mark);
    block.flags = mark.flags;
    store(into.data(), block);
    store(into.data(), mark_crc(into.data(), uuid, file_offset));
}

bool parse_mark(View bytes, std::size_t offset, const Uuid& uuid, std::uint64_t file_offset,
                Mark& out) noexcept {
    if (offset > bytes.size() || bytes.size() - offset < mark_size) return false;
    const std::uint8_t* at = bytes.data() + offset;
    const auto block = load<MarkBlock>(at);
    if (block.kind != static_cast<std::uint8_t>(Kind::mark) || block.zero != 0) return false;
    if (block.crc != mark_crc(at, uuid, file_offset)) return false;
    out = Mark{block.size, block.first_index, block.durable_upto, block.frames_hash, block.flags};
    return true;
}

}  // namespace copycat

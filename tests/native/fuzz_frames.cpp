// Frames and marks from hostile bytes: nothing outside is read, only ProtocolError is thrown, and
// what verifies is what was encoded.
#include <algorithm>
#include <cstring>
#include <memory>

#include "crc32c.hpp"
#include "driver.hpp"
#include "frame.hpp"

namespace copycat::native_test {
namespace {

// Bytes with nothing allocated behind them, so that a read outside is seen.
class Exact {
public:
    explicit Exact(View bytes) : data_(new std::uint8_t[bytes.size()]), size_(bytes.size()) {
        std::copy(bytes.begin(), bytes.end(), data_.get());
    }
    View view() const { return View(data_.get(), size_); }
    Block block() const { return Block{data_, view()}; }

private:
    std::shared_ptr<std::uint8_t[]> data_;
    std::size_t size_;
};

Bytes operations(Mutator& rng, std::uint32_t count) {
    Bytes body(4 * count);
    for (std::uint32_t i = 0; i < count; ++i) {
        const auto length = static_cast<std::uint32_t>(rng.below(40));
        std::memcpy(body.data() + 4 * i, &length, 4);
        body.resize(body.size() + length, static_cast<std::uint8_t>('a' + i % 26));
    }
    return body;
}

// Entries of a term from `first` on; with others beside them, none that travels alone (C4).
Frames entries(Mutator& rng, std::uint64_t term, std::uint64_t first, bool is_alone) {
    std::vector<Bytes> bodies;
    std::vector<EncodeItem> items;
    const std::uint64_t count = 1 + rng.below(3);
    for (std::uint64_t i = 0; i < count; ++i) {
        EncodeItem item;
        item.kind = static_cast<std::uint8_t>(1 + rng.below(10));
        if (item.kind == static_cast<std::uint8_t>(Kind::configuration) &&
            (count > 1 || !is_alone))
            item.kind = 2;
        const bool is_run = item.kind == static_cast<std::uint8_t>(Kind::command) ||
                            item.kind == static_cast<std::uint8_t>(Kind::data);
        item.count = is_run ? static_cast<std::uint32_t>(1 + rng.below(4)) : 1;
        item.session = rng.below(3) + 1;
        item.first_sequence = 1 + rng.below(9);
        item.acked_sequence = rng.below(item.first_sequence);
        bodies.push_back(is_run ? operations(rng, item.count) : Bytes(rng.below(70), 0x5a));
        items.push_back(item);
    }
    for (std::size_t i = 0; i < items.size(); ++i) items[i].body = View(bodies[i]);
    return encode_batch(term, first, rng.below(max_time_ms), items);
}

// A batch of a log that was compacted: entries and gaps, some of them of very many indexes.
Frames with_gaps(Mutator& rng, std::uint64_t term, std::uint64_t first) {
    Bytes bytes;
    std::uint64_t next = first;
    for (std::uint64_t parts = 1 + rng.below(4); parts > 0; --parts) {
        Frames part;
        if (rng.chance(2)) {
            const std::uint64_t length = rng.chance(8) ? rng.word() >> 12 : rng.below(40);
            const Span span{term, next, next + 1 + length};
            part = encode_gap(span, rng.below(max_time_ms), span.end - 1 + rng.below(50));
        } else {
            part = entries(rng, term, next, false);
        }
        bytes.insert(bytes.end(), part.block.bytes.begin(), part.block.bytes.end());
        next = part.span.end;
    }
    return Frames{Block::own(std::move(bytes)), Span{term, first, next}, true};
}

Frames batch(Mutator& rng) {
    const std::uint64_t term = 1 + rng.below(5);
    const std::uint64_t first = 1 + rng.below(1000);
    return rng.chance(3) ? with_gaps(rng, term, first) : entries(rng, term, first, true);
}

// As far as sizes lead from frame to frame, checksums that fit again: what is behind them is
// reached.
void fix_checksums(Bytes& bytes) {
    for (std::size_t at = 0; at + sizeof(FrameHeader) <= bytes.size();) {
        const auto size = load<FrameHeader>(bytes.data() + at).size;
        if (size > bytes.size() - at - sizeof(FrameHeader)) return;
        store(bytes.data() + at,
              crc32c(View(bytes).subspan(at + 4, sizeof(FrameHeader) - 4 + size)));
        at += frame_size(size);
    }
}

void use(const Frames& frames, Mutator& rng) {
    const Span span = frames.span;
    const std::uint64_t first = span.first + rng.below(span.end - span.first);
    const std::uint64_t end = first + 1 + rng.below(span.end - first);
    Cursor cursor;
    const Frames part = slice(frames, first, end, &cursor);
    verify_frames(part.block.bytes, part.span);
    const Frames whole = slice(frames, span.first, span.end);
    expect(whole.nbytes() == frames.nbytes(), "a verified batch ends where it ends");
    frames_hash(part.block.bytes);
    try {
        const Runs runs = cut_runs(part, first, end);
        expect(runs.payloads.size() <= end - first, "one payload an entry, none in a gap");
        std::uint64_t sum = 0;
        for (const View payload : runs.payloads)
            for (const std::uint8_t byte : payload) sum += byte;
        expect(sum <= 0xff * part.nbytes(), "payloads are bytes of the frames");
    } catch (const ProtocolError&) {  // a command without its envelope
    }
}

void receive(Mutator& rng) {
    const Frames sent = batch(rng);
    Bytes bytes(sent.block.bytes.begin(), sent.block.bytes.end());
    const bool is_changed = !rng.chance(16);
    if (is_changed) rng.mutate(bytes, 1 + rng.below(4));
    const bool is_fixed = rng.chance(2);
    if (is_fixed) fix_checksums(bytes);
    Span span = sent.span;
    if (rng.chance(16)) span.end = span.first + rng.below(64);
    const Exact exact{View(bytes)};
    Frame frame;
    for (std::size_t at = 0; at <= bytes.size(); at += 8) parse_frame(exact.view(), at, frame);
    bool has_gaps = false;
    try {
        has_gaps = verify_frames(exact.view(), span);
    } catch (const ProtocolError&) {
        expect(is_changed || is_fixed || span != sent.span, "what was encoded verifies");
        return;
    }
    if (!is_fixed) {
        const View all = sent.block.bytes;
        expect(bytes.size() <= all.size() && std::ranges::equal(all.first(bytes.size()), bytes),
               "no other bytes verify");
    }
    if (span.first < span.end) use(Frames{exact.block(), span, has_gaps}, rng);
}

// Requests of clients: lengths that do not fit are told, never followed.
void encode(Mutator& rng) {
    const auto count = static_cast<std::uint32_t>(1 + rng.below(6));
    Bytes body = operations(rng, count);
    rng.mutate(body, rng.below(3));
    const std::uint64_t claimed = rng.chance(4) ? rng.edge(count) : count;
    const Exact exact{View(body)};
    try {
        check_commands(exact.view(), claimed, 64);
    } catch (const std::invalid_argument&) {
        return;
    } catch (const TooLargeError&) {
        return;
    }
    EncodeItem item;
    item.kind = static_cast<std::uint8_t>(Kind::command);
    item.session = 7;
    item.first_sequence = 1;
    item.count = static_cast<std::uint32_t>(claimed);
    item.body = exact.view();
    if (claimed == 0) return;
    const Frames frames = encode_batch(3, 9, 1, std::span(&item, 1));
    expect(frames.span.end - frames.span.first == claimed, "one frame an operation");
    verify_frames(frames.block.bytes, frames.span);
    use(frames, rng);
}

void read_mark(Mutator& rng) {
    Uuid uuid{};
    uuid[3] = 9;
    const std::uint64_t offset = 4096 + 8 * rng.below(100);
    const Mark mark{static_cast<std::uint32_t>(rng.below(4096)), rng.below(99), rng.below(99),
                    static_cast<std::uint32_t>(rng.word()), 0};
    Bytes bytes(mark_size);
    encode_mark(mark, uuid, offset, MutableView(bytes));
    const Bytes before = bytes;
    rng.mutate(bytes, rng.below(3));
    const std::uint64_t place = rng.chance(8) ? offset + 8 : offset;
    const Exact exact{View(bytes)};
    Mark parsed_mark;
    const bool is_mark = parse_mark(exact.view(), 0, uuid, place, parsed_mark);
    bytes.resize(mark_size);
    expect(is_mark == (place == offset && exact.view().size() >= mark_size && bytes == before),
           "a mark is of its bytes and its place");
    parse_mark(exact.view(), rng.edge(mark_size), uuid, place, parsed_mark);
}

void run(Mutator& rng) {
    switch (rng.below(8)) {
        case 0:
            return encode(rng);
        case 1:
            return read_mark(rng);
        default:
            return receive(rng);
    }
}

}  // namespace
}  // namespace copycat::native_test

int main(int argc, char** argv) {
    return copycat::native_test::drive(argc, argv, 2'000'000, copycat::native_test::run);
}

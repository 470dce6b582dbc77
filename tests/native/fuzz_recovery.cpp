// Opening a directory of which files were damaged: a typed error that changes nothing, or a log
// whose entries are the ones that were written, and which continues.
//
// Half of the runs make the checksums fit again, so that what is behind them is reached; then no
// promise about contents is left, but memory is safe and errors are typed all the same.
#include <algorithm>
#include <cstring>

#include "crc32c.hpp"
#include "driver.hpp"
#include "fault_env.hpp"
#include "log.hpp"

namespace copycat::native_test {
namespace {

const std::string directory = "/d/log";
constexpr std::uint64_t bases = 48;

LogOptions options(bool read_only = false) { return LogOptions{16384, 5, 0, read_only}; }

std::string payload_of(std::uint64_t index, std::uint64_t term) {
    std::string text = std::to_string(term) + ":" + std::to_string(index) + ".";
    text.resize(text.size() + (index * 37 + term * 11) % 150, 'x');
    return text;
}

void grow(SegmentedLog& log, std::uint64_t count, std::uint64_t term) {
    std::vector<std::string> payloads;
    std::vector<EncodeItem> items;
    const std::uint64_t first = log.last_index() + 1;
    for (std::uint64_t i = 0; i < count; ++i) payloads.push_back(payload_of(first + i, term));
    for (const std::string& text : payloads) {
        EncodeItem item;
        item.kind = static_cast<std::uint8_t>(Kind::tick);
        item.count = 1;
        item.body = View(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
        items.push_back(item);
    }
    log.append(encode_batch(term, first, 1, items));
}

void sync(SegmentedLog& log) {
    const auto ticket = log.begin_sync();
    ticket->run();
    log.end_sync(*ticket);
    if (log.has_obsolete_files()) log.remove_obsolete_files();
}

// Of the indexes and segments that random numbers choose: released, rewritten and swapped in.
void compact(SegmentedLog& log, Mutator& rng) {
    const std::uint64_t first = log.first_index();
    std::vector<std::uint64_t> indexes;
    for (std::uint64_t index = first; index <= log.last_index(); ++index)
        if (!rng.chance(3)) indexes.push_back(index);
    log.release(indexes, Release::any);
    const Limits limits{log.durable_index(), log.durable_index(), 0};
    std::vector<std::vector<std::uint64_t>> groups;
    for (const SegmentStats& row : log.segment_stats(limits)) {
        if (!row.sealed) continue;
        if (groups.empty() || groups.back().size() > rng.below(3)) groups.emplace_back();
        groups.back().push_back(row.id);
    }
    if (groups.empty()) return;
    const auto rewrite = log.rewrite(groups, limits, false);
    rewrite->run();
    log.install(*rewrite);
}

// As a leader sends it whose log was compacted (C3).
void receive_gap(SegmentedLog& log, Mutator& rng, std::uint64_t term) {
    const std::uint64_t first = log.last_index() + 1;
    const std::uint64_t end = first + 1 + rng.below(rng.chance(4) ? 1'000'000 : 9);
    log.append(encode_gap(Span{term, first, end}, 1, end));
}

// A disk after a life of its own: rolls, truncations, a trim, spares, gaps that were received and
// gaps that compactions left; closed, killed or cut.
std::shared_ptr<FaultEnv> base(std::uint64_t number) {
    Mutator rng(number);
    auto env = make_fault_env(number);
    LogOptions opened = options();
    opened.compress = rng.chance(2);
    SegmentedLog log(env, directory, opened);
    std::uint64_t term = 1;
    for (std::uint64_t step = 4 + rng.below(8); step > 0; --step) {
        term += rng.below(2);
        grow(log, 1 + rng.below(4), term);
        if (!rng.chance(3)) sync(log);
        if (rng.chance(4)) log.mark_idle();
        if (rng.chance(5) && log.wants_spare()) log.prepare_spare();
        if (rng.chance(6)) {
            const std::uint64_t low = log.first_index() - 1;
            log.truncate(low + rng.below(log.last_index() - low + 1));
        }
        if (rng.chance(8)) log.trim(log.durable_index());
        if (rng.chance(8)) receive_gap(log, rng, term);
        if (rng.chance(3)) compact(log, rng);
    }
    switch (number % 3) {
        case 0:
            log.close();
            break;
        case 1:
            env->crash_process();
            break;
        default:
            env->crash(number, number % 2 == 0);
    }
    return env;
}

template <typename Header>
void fix_from(Bytes& bytes, std::size_t crc_at, std::size_t from, std::size_t end) {
    if (bytes.size() < sizeof(Header)) return;
    end = std::min(end, bytes.size());
    store(bytes.data() + crc_at, crc32c(View(bytes).subspan(from, end - from)));
}

void fix_records(Bytes& bytes) {
    Uuid uuid{};
    std::copy_n(bytes.begin() + 16, 16, uuid.begin());
    for (std::size_t at = segment_data_offset; at + sizeof(FrameHeader) <= bytes.size();) {
        if (bytes[at + offsetof(FrameHeader, kind)] == static_cast<std::uint8_t>(Kind::mark)) {
            const auto block = load<MarkBlock>(bytes.data() + at);
            encode_mark({block.size, block.first_index, block.durable_upto, block.frames_hash,
                         block.flags},
                        uuid, at, MutableView(bytes).subspan(at, mark_size));
            at += mark_size;
            continue;
        }
        const auto size = load<FrameHeader>(bytes.data() + at).size;
        if (size > bytes.size() - at - sizeof(FrameHeader)) return;
        store(bytes.data() + at,
              crc32c(View(bytes).subspan(at + 4, sizeof(FrameHeader) - 4 + size)));
        at += frame_size(size);
    }
}

// Checksums that fit what stands there now, whatever kind of file it is.
void fix(const FileName& name, Bytes& bytes) {
    constexpr std::size_t crc_at = 12;
    switch (name.role) {
        case FileRole::manifest:
        case FileRole::pending:
            return fix_from<ManifestHeader>(bytes, crc_at, 16, bytes.size());
        case FileRole::segment:
            fix_from<SegmentHeader>(bytes, crc_at, 16, sizeof(SegmentHeader));
            if (bytes.size() > segment_data_offset) fix_records(bytes);
            return;
        case FileRole::index: {
            if (bytes.size() < sizeof(IndexHeader)) return;
            const auto runs = load<IndexHeader>(bytes.data()).runs;
            const std::size_t slots =
                std::min<std::size_t>(bytes.size(), sizeof(IndexHeader) + 16ULL * runs);
            store(bytes.data() + offsetof(IndexHeader, slots_crc),
                  crc32c(View(bytes).subspan(slots)));
            return fix_from<IndexHeader>(bytes, crc_at, 16, slots);
        }
        default:
            return;
    }
}

// The file with these bytes; zeros are background, which the log may write.
void put(FaultEnv& env, const std::string& path, const Bytes& bytes) {
    if (env.exists(path)) env.remove(path);
    const auto file = env.create(path);
    file->allocate(bytes.size());
    const auto is_zero = [&](std::size_t at) {
        const std::size_t end = std::min(bytes.size(), at + 8);
        return std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                           bytes.begin() + static_cast<std::ptrdiff_t>(end),
                           [](std::uint8_t byte) { return byte == 0; });
    };
    for (std::size_t at = 0; at < bytes.size();) {
        std::size_t end = at;
        while (end < bytes.size() && !is_zero(end)) end += 8;
        end = std::min(end, bytes.size());
        if (end > at) file->pwrite(at, View(bytes).subspan(at, end - at));
        at = std::max(end, at + 8);
    }
    file->fsync();
    env.sync_directory(directory);
}

// In the parts that are read: most of a segment file is zeros that nobody looks at.
void mutate_used(Mutator& rng, Bytes& bytes) {
    std::size_t used = bytes.size();
    while (used > 0 && bytes[used - 1] == 0) --used;
    used = std::min(bytes.size(), (used + 64) & ~std::size_t{7});
    if (used <= segment_data_offset) return rng.mutate(bytes, 1 + rng.below(3));
    Bytes tail(bytes.begin() + static_cast<std::ptrdiff_t>(used), bytes.end());
    Bytes records(bytes.begin() + segment_data_offset,
                  bytes.begin() + static_cast<std::ptrdiff_t>(used));
    Bytes header(bytes.begin(), bytes.begin() + 64);
    if (rng.chance(4))
        rng.mutate(header, 1 + rng.below(2));
    else
        rng.mutate(records, 1 + rng.below(3));
    header.resize(64);
    bytes.resize(segment_data_offset);
    std::copy(header.begin(), header.end(), bytes.begin());
    bytes.insert(bytes.end(), records.begin(), records.end());
    bytes.insert(bytes.end(), tail.begin(), tail.end());
    if (rng.chance(4)) bytes.resize(rng.below(bytes.size() + 1));
}

void damage(FaultEnv& env, Mutator& rng, bool is_fixed) {
    std::vector<std::string> names = env.list(directory);
    std::erase(names, "lock");
    std::erase(names, "lost+found");
    for (std::uint64_t count = 1 + rng.below(2); count > 0; --count) {
        const std::string name = names[rng.below(names.size())];
        const std::string path = join(directory, name);
        if (rng.chance(24)) {
            if (env.exists(path)) env.remove(path);
            continue;
        }
        const std::string& other = rng.chance(24) ? names[rng.below(names.size())] : name;
        if (!env.exists(join(directory, other))) continue;
        Bytes bytes = env.read_file(join(directory, other));
        mutate_used(rng, bytes);
        if (is_fixed) fix(parse_name(name), bytes);
        put(env, path, bytes);
    }
}

struct Entry {
    std::uint64_t index;
    std::uint64_t term;
    Bytes payload;
    friend bool operator==(const Entry&, const Entry&) = default;
};

std::vector<Entry> contents(SegmentedLog& log) {
    std::vector<Entry> entries;
    for (std::uint64_t index = log.first_index(); index <= log.last_index();) {
        const Frames frames = log.read(index, log.last_index() + 1, 300);
        verify_frames(frames.block.bytes, frames.span);
        const Runs runs = cut_runs(frames, frames.span.first, frames.span.end);
        for (const RunPart& part : runs.parts) {
            expect(part.first_index == index, "a read gives its span");
            if (part.kind == static_cast<std::uint8_t>(Kind::gap)) {
                index = part.first_sequence;
                continue;
            }
            for (std::size_t at = 0; at < part.count; ++at) {
                const View payload = runs.payloads[part.first_payload + at];
                entries.push_back(
                    {index++, frames.span.term, Bytes(payload.begin(), payload.end())});
            }
        }
        expect(index == frames.span.end, "a read gives its span");
    }
    return entries;
}

void check_entries(const std::vector<Entry>& entries) {
    for (const Entry& entry : entries) {
        const std::string text = payload_of(entry.index, entry.term);
        expect(std::ranges::equal(entry.payload, text, {}, {},
                                  [](char c) { return static_cast<std::uint8_t>(c); }),
               "an entry was invented");
    }
}

// What a log is asked for by whoever only looks; true when it was refused.
bool is_refused(const std::shared_ptr<FaultEnv>& env, bool read_only, bool is_fixed) {
    const std::uint64_t before = env->digest();
    bool is_open = false;
    try {
        SegmentedLog log(env, directory, options(read_only));
        is_open = true;
        const std::vector<Entry> entries = contents(log);
        if (!is_fixed) check_entries(entries);
        for (const SegmentInfo& segment : log.segments()) log.slots(segment.id);
        if (read_only) {
            expect(env->digest() == before, "a reader changes nothing");
            return false;
        }
        grow(log, 7, log.last_entry().term + 1);
        sync(log);
        log.close();
        SegmentedLog again(env, directory, options());
        std::vector<Entry> entries_again = contents(again);
        expect(entries_again.size() == entries.size() + 7,
               "what was kept and appended is there again");
        entries_again.resize(entries.size());
        expect(entries_again == entries, "what was kept stays as it was");
        return false;
    } catch (const CorruptError&) {
    } catch (const FormatError&) {
    } catch (const NotFoundError&) {
        expect(read_only, "a log that is to be written is made when it is not there");
    } catch (const ProtocolError&) {
        expect(is_fixed, "only fitting checksums hide a frame that is none");
    }
    if (!is_open) expect(env->digest() == before, "a refusal changes nothing");
    return true;
}

void run(Mutator& rng) {
    static const std::vector<std::shared_ptr<FaultEnv>> corpus = [] {
        std::vector<std::shared_ptr<FaultEnv>> made;
        for (std::uint64_t number = 0; number < bases; ++number) made.push_back(base(number));
        return made;
    }();
    const auto env = corpus[rng.below(bases)]->clone();
    const bool is_fixed = rng.chance(2);
    damage(*env, rng, is_fixed);
    if (rng.chance(4)) env->crash(rng.word(), true);
    is_refused(env, true, is_fixed);
    is_refused(env, false, is_fixed);
}

}  // namespace
}  // namespace copycat::native_test

int main(int argc, char** argv) {
    return copycat::native_test::drive(argc, argv, 20'000, copycat::native_test::run);
}

#include "slot_index.hpp"

#include <algorithm>

#include "crc32c.hpp"

namespace copycat {
namespace {

constexpr std::size_t crc_from = 16;

template <typename T>
View as_bytes(std::span<const T> values) {
    return View(reinterpret_cast<const std::uint8_t*>(values.data()), values.size_bytes());
}

bool is_of(const IndexHeader& header, const Row& row) {
    return header.magic == index_magic && header.format_version == format_version &&
           std::equal(row.uuid.begin(), row.uuid.end(), header.uuid) && header.id == row.id &&
           header.version == row.version && header.first_index == row.first_index;
}

std::uint64_t head_size(const IndexHeader& header) {
    return sizeof header + std::uint64_t{header.runs} * sizeof(TermRunRow);
}

std::uint32_t crc_of(const SlotView& view) {
    return crc32c(as_bytes(view.starts), crc32c(as_bytes(view.slots)));
}

}  // namespace

SlotIndex::SlotIndex(Slots slots, std::vector<TermRun> runs, std::uint64_t valid_from)
    : memory_(std::move(slots)),
      view_(memory_.view()),
      runs_(std::move(runs)),
      valid_from_(valid_from),
      verified_(true) {
    require(runs_.empty() || runs_.front().first == memory_.first_index(),
            "an index's first run begins at its first entry");
}

std::shared_ptr<SlotIndex> SlotIndex::open(Env& env, const std::string& path, const Row& row,
                                           bool is_sealed) {
    auto out = std::shared_ptr<SlotIndex>(new SlotIndex(row.first_index));
    IndexHeader& header = out->header_;
    Bytes head(sizeof header);
    try {
        // The head is read with pread, so that a bad sector is an errno (F14).
        const auto file = env.open(path, Access::read);
        if (file->pread(0, MutableView(head)) < sizeof header) return nullptr;
        header = load<IndexHeader>(head.data());
        const std::uint64_t size = file->size();
        if (!is_of(header, row) || header.end < header.first_index || head_size(header) > size)
            return nullptr;
        head.resize(static_cast<std::size_t>(head_size(header)));
        if (file->pread(0, MutableView(head)) < head.size()) return nullptr;
        out->mapped_ = file->map();
    } catch (const IoError&) {
        return nullptr;  // EMFILE, EACCES or a bad sector only cause a rebuild
    }
    if (crc32c(View(head).subspan(crc_from)) != header.crc) return nullptr;
    if (is_sealed && header.end <= row.last_index) return nullptr;
    out->path_ = path;
    if (!out->place()) return nullptr;
    const std::uint64_t end = is_sealed ? row.last_index + 1 : header.end;
    for (std::uint32_t i = 0; i < header.runs; ++i) {
        const auto run =
            load<TermRunRow>(head.data() + sizeof header + std::size_t{i} * sizeof(TermRunRow));
        if (run.first < end) out->runs_.push_back({run.term, run.first});
    }
    if (end != row.first_index &&
        (out->runs_.empty() || out->runs_.front().first != row.first_index))
        return nullptr;
    return out;
}

// Sets views of the records in the mapping, without reading it; false if its size is wrong.
bool SlotIndex::place() {
    const std::size_t head = static_cast<std::size_t>(head_size(header_));
    const bool is_sparse = (header_.flags & index_flag_sparse) != 0;
    const std::uint64_t indexes = header_.end - header_.first_index;
    const std::size_t each = sizeof(IndexSlot) + (is_sparse ? sizeof(std::uint32_t) : 0);
    if (mapped_.bytes.size() < head) return false;
    const std::size_t rest = mapped_.bytes.size() - head;
    if (header_.count > rest / each || rest != header_.count * each) return false;
    if (is_sparse ? header_.count == 0 || header_.count >= indexes : header_.count != indexes)
        return false;
    // A mapping begins at a page, and `head` is a multiple of 8, so all records are aligned.
    const std::uint8_t* at = mapped_.bytes.data() + head;
    const auto count = static_cast<std::size_t>(header_.count);
    view_ = {header_.first_index, header_.end, {}, {}};
    view_.slots = {reinterpret_cast<const IndexSlot*>(at), count};
    if (is_sparse)
        view_.starts = {reinterpret_cast<const std::uint32_t*>(at + count * sizeof(IndexSlot)),
                        count};
    slots_crc_ = header_.slots_crc;
    valid_from_ = header_.valid_from;
    return true;
}

// F14: checks the pages, so that one which cannot be read causes a rebuild and no signal.
bool SlotIndex::make_readable(Env& env) {
    const Readable readability = probe(mapped_.bytes);
    if (readability != Readable::unknown) return readability == Readable::yes;
    try {
        mapped_ = Block::own(env.read_file(path_));
    } catch (const IoError&) {
        return false;
    }
    return place();
}

bool SlotIndex::verify(Env& env) {
    if (!verified_) verified_ = make_readable(env) && crc_of(view_) == slots_crc_;
    return verified_;
}

Block SlotIndex::block() const { return Block{mapped_.owner, as_bytes(view_.slots)}; }

Bytes SlotIndex::encode(const Row& row) const {
    IndexHeader header{};
    header.magic = index_magic;
    header.format_version = format_version;
    std::copy(row.uuid.begin(), row.uuid.end(), header.uuid);
    header.id = row.id;
    header.version = row.version;
    header.runs = static_cast<std::uint32_t>(runs_.size());
    header.first_index = row.first_index;
    header.end = view_.end;
    header.valid_from = valid_from_;
    header.count = view_.count();
    header.slots_crc = crc_of(view_);
    header.flags = view_.is_dense() ? 0 : index_flag_sparse;
    const View slots = as_bytes(view_.slots);
    const View starts = as_bytes(view_.starts);
    const std::size_t head = sizeof header + runs_.size() * sizeof(TermRunRow);
    Bytes bytes(head);
    bytes.reserve(head + slots.size() + starts.size());
    for (std::size_t i = 0; i < runs_.size(); ++i)
        store(bytes.data() + sizeof header + i * sizeof(TermRunRow),
              TermRunRow{runs_[i].term, runs_[i].first});
    store(bytes.data(), header);
    header.crc = crc32c(View(bytes).subspan(crc_from, head - crc_from));
    store(bytes.data(), header);
    bytes.insert(bytes.end(), slots.begin(), slots.end());
    bytes.insert(bytes.end(), starts.begin(), starts.end());
    return bytes;
}

}  // namespace copycat

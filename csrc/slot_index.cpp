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
    Block file;
    try {
        const auto handle = env.open(path, Access::read);
        if (handle->size() < sizeof(IndexHeader)) return nullptr;
        file = handle->map();
    } catch (const IoError&) {
        return nullptr;  // a cache: EMFILE, EACCES or a bad sector cost a rebuild, no more
    }
    const auto header = load<IndexHeader>(file.bytes.data());
    if (!is_of(header, row) || header.end < header.first_index) return nullptr;
    const std::uint64_t size = file.bytes.size();
    const std::uint64_t head = sizeof header + std::uint64_t{header.runs} * sizeof(TermRunRow);
    if (size < head) return nullptr;
    if (crc32c(file.bytes.subspan(crc_from, head - crc_from)) != header.crc) return nullptr;
    if (is_sealed && header.end <= row.last_index) return nullptr;

    auto out = std::shared_ptr<SlotIndex>(new SlotIndex(row.first_index));
    out->mapped_ = std::move(file);
    if (!out->place(header, static_cast<std::size_t>(head))) return nullptr;
    const std::uint64_t end = is_sealed ? row.last_index + 1 : header.end;
    for (std::uint32_t i = 0; i < header.runs; ++i) {
        const auto run = load<TermRunRow>(out->mapped_.bytes.data() + sizeof header +
                                          std::size_t{i} * sizeof(TermRunRow));
        if (run.first < end) out->runs_.push_back({run.term, run.first});
    }
    if (end != row.first_index &&
        (out->runs_.empty() || out->runs_.front().first != row.first_index))
        return nullptr;
    return out;
}

// Finds the records in the mapping: false when its size does not fit what its header says.
bool SlotIndex::place(const IndexHeader& header, std::size_t head) {
    const bool is_sparse = (header.flags & index_flag_sparse) != 0;
    const std::uint64_t indexes = header.end - header.first_index;
    const std::size_t each = sizeof(IndexSlot) + (is_sparse ? sizeof(std::uint32_t) : 0);
    const std::size_t rest = mapped_.bytes.size() - head;
    if (header.count > rest / each || rest != header.count * each) return false;
    if (is_sparse ? header.count == 0 || header.count >= indexes : header.count != indexes)
        return false;
    // A mapping begins at a page and head is a multiple of 8, so all is aligned.
    const std::uint8_t* at = mapped_.bytes.data() + head;
    const auto count = static_cast<std::size_t>(header.count);
    view_ = {header.first_index, header.end, {}, {}};
    view_.slots = {reinterpret_cast<const IndexSlot*>(at), count};
    if (is_sparse)
        view_.starts = {reinterpret_cast<const std::uint32_t*>(at + count * sizeof(IndexSlot)),
                        count};
    slots_crc_ = header.slots_crc;
    valid_from_ = header.valid_from;
    return true;
}

bool SlotIndex::verify() {
    if (!verified_) verified_ = crc_of(view_) == slots_crc_;
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

#include "slot_index.hpp"

#include <algorithm>

#include "crc32c.hpp"

namespace copycat {
namespace {

constexpr std::size_t crc_from = 16;

View as_bytes(std::span<const IndexSlot> slots) {
    return View(reinterpret_cast<const std::uint8_t*>(slots.data()), slots.size_bytes());
}

bool is_of(const IndexHeader& header, const Row& row) {
    return header.magic == index_magic && header.format_version == format_version &&
           std::equal(row.uuid.begin(), row.uuid.end(), header.uuid) && header.id == row.id &&
           header.version == row.version && header.first_index == row.first_index;
}

}  // namespace

SlotIndex::SlotIndex(std::uint64_t first_index, std::vector<IndexSlot> slots,
                     std::vector<TermRun> runs)
    : memory_(std::move(slots)), slots_(memory_), runs_(std::move(runs)), verified_(true) {
    require(runs_.empty() || runs_.front().first == first_index,
            "an index's first run begins at its first entry");
}

std::shared_ptr<SlotIndex> SlotIndex::open(Env& env, const std::string& path, const Row& row,
                                           std::optional<std::uint64_t> count) {
    Block file;
    try {
        const auto handle = env.open(path, Access::read);
        if (handle->size() < sizeof(IndexHeader)) return nullptr;
        file = handle->map();
    } catch (const IoError&) {
        return nullptr;  // a cache: EMFILE, EACCES or a bad sector cost a rebuild, no more
    }
    const auto header = load<IndexHeader>(file.bytes.data());
    if (!is_of(header, row)) return nullptr;
    const std::uint64_t size = file.bytes.size();
    if (header.count > size / sizeof(IndexSlot)) return nullptr;
    const std::uint64_t head = sizeof header + std::uint64_t{header.runs} * sizeof(TermRunRow);
    if (size != head + header.count * sizeof(IndexSlot)) return nullptr;
    if (crc32c(file.bytes.subspan(crc_from, head - crc_from)) != header.crc) return nullptr;
    if (count && header.count < *count) return nullptr;

    auto out = std::shared_ptr<SlotIndex>(new SlotIndex());
    const std::uint64_t kept = count ? *count : header.count;
    for (std::uint32_t i = 0; i < header.runs; ++i) {
        const auto run = load<TermRunRow>(file.bytes.data() + sizeof header +
                                          std::size_t{i} * sizeof(TermRunRow));
        if (run.first < row.first_index + kept) out->runs_.push_back({run.term, run.first});
    }
    if (kept != 0 && (out->runs_.empty() || out->runs_.front().first != row.first_index))
        return nullptr;
    // A mapping begins at a page and head is a multiple of 8, so the slots are aligned.
    out->slots_ = {reinterpret_cast<const IndexSlot*>(file.bytes.data() + head), header.count};
    out->slots_crc_ = header.slots_crc;
    out->mapped_ = std::move(file);
    return out;
}

bool SlotIndex::verify() {
    if (!verified_) verified_ = crc32c(as_bytes(slots_)) == slots_crc_;
    return verified_;
}

Block SlotIndex::block() const { return Block{mapped_.owner, as_bytes(slots_)}; }

Bytes SlotIndex::encode(const Row& row) const {
    IndexHeader header{};
    header.magic = index_magic;
    header.format_version = format_version;
    std::copy(row.uuid.begin(), row.uuid.end(), header.uuid);
    header.id = row.id;
    header.version = row.version;
    header.runs = static_cast<std::uint32_t>(runs_.size());
    header.first_index = row.first_index;
    header.count = slots_.size();
    header.slots_crc = crc32c(as_bytes(slots_));
    const std::size_t head = sizeof header + runs_.size() * sizeof(TermRunRow);
    Bytes bytes(head + slots_.size_bytes());
    store(bytes.data(), header);
    for (std::size_t i = 0; i < runs_.size(); ++i)
        store(bytes.data() + sizeof header + i * sizeof(TermRunRow),
              TermRunRow{runs_[i].term, runs_[i].first});
    if (!slots_.empty()) std::memcpy(bytes.data() + head, slots_.data(), slots_.size_bytes());
    header.crc = crc32c(View(bytes).subspan(crc_from, head - crc_from));
    store(bytes.data(), header);
    return bytes;
}

}  // namespace copycat

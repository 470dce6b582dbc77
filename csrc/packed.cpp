#include "packed.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "crc32c.hpp"
#include "lz4_block.hpp"

namespace copycat {
namespace {

constexpr std::size_t crc_from = 16;
// The size of one write, as in csrc/compactor.cpp.
constexpr std::size_t write_bytes = std::size_t{1} << 18;
// How many stored bytes are read at once.
constexpr std::size_t read_bytes_max = std::size_t{1} << 20;

std::uint32_t crc_of(const std::uint8_t* uuid, std::size_t number, View stored) {
    std::uint8_t place[4];
    store(place, static_cast<std::uint32_t>(number));
    return crc32c(stored, crc32c(View(place), crc32c(View(uuid, sizeof(Uuid)))));
}

// The plain bytes of a packed file. For one thread at a time.
class PackedFile final : public File {
public:
    PackedFile(std::shared_ptr<File> file, const Row& row)
        : file_(std::move(file)), first_index_(row.first_index) {
        std::uint8_t bytes[sizeof(PackedHeader)];
        if (file_->pread(0, MutableView(bytes)) < sizeof bytes) corrupt(0, "no packed header");
        header_ = load<PackedHeader>(bytes);
        if (header_.magic != packed_magic) corrupt(0, "wrong magic number");
        if (header_.format_version != packed_format_version)
            throw FormatError("segment " + path() + " has format version " +
                                  std::to_string(header_.format_version) + "; this build reads " +
                                  std::to_string(packed_format_version),
                              path(), 8);
        if (crc32c(View(bytes).subspan(crc_from)) != header_.crc)
            corrupt(0, "its header's checksum does not fit");
        if (!std::equal(row.uuid.begin(), row.uuid.end(), header_.uuid) || header_.id != row.id ||
            header_.version != row.version || header_.first_index != row.first_index)
            corrupt(0, "it is not the segment that the manifest names");
        read_table();
    }

    const std::string& path() const override { return file_->path(); }
    void renamed(std::string&&) override { refuse(); }
    std::uint64_t size() const override { return header_.plain_size; }
    std::uint64_t stored_size() const override { return file_->size(); }
    void drop_cache() override { file_->drop_cache(); }

    std::size_t pread(std::uint64_t offset, MutableView into) override {
        if (offset >= size()) return 0;
        into = into.first(
            static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), size() - offset)));
        const std::uint64_t end = offset + into.size();
        for (std::uint64_t at = offset; at < end;) {
            const auto number = static_cast<std::size_t>(at / header_.block_bytes);
            const PlainBlock* block = find(number);
            if (block == nullptr) {
                at = unpack(number, offset, into, at);
                continue;
            }
            at = copy(number, View(block->bytes), offset, into, at);
        }
        return into.size();
    }

    void allocate(std::uint64_t) override { refuse(); }
    void zero_fill(std::uint64_t, std::uint64_t) override { refuse(); }
    void pwrite(std::uint64_t, View) override { refuse(); }
    void shorten(std::uint64_t) override { refuse(); }
    std::unique_ptr<Work> begin_sync() override { refuse(); }
    void fsync() override { refuse(); }
    Block map() override { refuse(); }

private:
    struct PlainBlock {
        std::size_t number = std::numeric_limits<std::size_t>::max();
        Bytes bytes;
    };

    [[noreturn]] static void refuse() {
        throw InvariantError("a packed segment is read with pread, and nothing else");
    }

    [[noreturn]] void corrupt(std::uint64_t offset, const std::string& what) const {
        throw CorruptError(
            "segment " + path() + " is corrupt at byte " + std::to_string(offset) + ": " + what,
            path(), static_cast<std::int64_t>(offset), first_index_);
    }

    // F28: checked against the size of the file before memory is allocated.
    void read_table() {
        const std::uint64_t block_bytes = header_.block_bytes;
        if (block_bytes < 512 || block_bytes > lz4_plain_max ||
            header_.plain_size > max_file_size ||
            header_.blocks != (header_.plain_size + block_bytes - 1) / block_bytes)
            corrupt(0, "it counts out of bounds");
        const std::uint64_t table_bytes = std::uint64_t{header_.blocks} * sizeof(PackedBlock);
        if (header_.table_offset < sizeof header_ || header_.table_offset > max_file_size ||
            file_->size() != header_.table_offset + table_bytes)
            corrupt(0, "it has " + std::to_string(file_->size()) + " bytes, not " +
                           std::to_string(header_.table_offset + table_bytes));
        const Block bytes =
            file_->read(header_.table_offset, static_cast<std::size_t>(table_bytes));
        if (bytes.bytes.size() != table_bytes || crc32c(bytes.bytes) != header_.table_crc)
            corrupt(header_.table_offset, "its table's checksum does not fit");
        table_.reserve(header_.blocks);
        for (std::size_t number = 0; number < header_.blocks; ++number) {
            const auto block =
                load<PackedBlock>(bytes.bytes.data() + number * sizeof(PackedBlock));
            if (block.offset < sizeof header_ || block.size == 0 ||
                block.size > plain_of(number) ||
                std::uint64_t{block.offset} + block.size > header_.table_offset)
                corrupt(header_.table_offset + number * sizeof(PackedBlock),
                        "block " + std::to_string(number) + " lies out of bounds");
            table_.push_back(block);
        }
    }

    std::size_t plain_of(std::size_t number) const {
        const std::uint64_t begin = std::uint64_t{header_.block_bytes} * number;
        return static_cast<std::size_t>(
            std::min<std::uint64_t>(header_.block_bytes, header_.plain_size - begin));
    }

    const PlainBlock* find(std::size_t number) const {
        const auto match =
            std::find_if(cache_.begin(), cache_.end(),
                         [&](const PlainBlock& block) { return block.number == number; });
        return match == cache_.end() ? nullptr : &*match;
    }

    // Copies the part of block `number` that `into`, which begins at `offset`, needs from `at` on.
    // Returns the end of that part.
    std::uint64_t copy(std::size_t number, View plain, std::uint64_t offset, MutableView into,
                       std::uint64_t at) const {
        const View from = plain.subspan(
            static_cast<std::size_t>(at - std::uint64_t{header_.block_bytes} * number));
        const MutableView to = into.subspan(static_cast<std::size_t>(at - offset));
        const std::size_t size = std::min(from.size(), to.size());
        std::copy_n(from.begin(), size, to.begin());
        return at + size;
    }

    // Reads from block `number` on: several blocks at once. A block that `into` contains whole is
    // unpacked into its place; one of which only a part is needed is kept for the next read.
    std::uint64_t unpack(std::size_t number, std::uint64_t offset, MutableView into,
                         std::uint64_t at) {
        const std::uint64_t end = offset + into.size();
        const auto last = static_cast<std::size_t>((end - 1) / header_.block_bytes);
        std::size_t after = number + 1;
        const std::uint32_t begin = table_[number].offset;
        const auto stored_end = [&](std::size_t block) {
            return table_[block].offset + table_[block].size;
        };
        while (after <= last && find(after) == nullptr &&
               table_[after].offset == stored_end(after - 1) &&
               stored_end(after) - begin <= read_bytes_max)
            ++after;
        const Block read = file_->read(begin, stored_end(after - 1) - begin);
        for (; number < after; ++number) {
            const std::size_t skip = table_[number].offset - begin;
            const View rest = read.bytes.subspan(std::min(skip, read.bytes.size()));
            const View stored =
                rest.first(std::min<std::size_t>(rest.size(), table_[number].size));
            const std::size_t size = plain_of(number);
            const std::uint64_t from = std::uint64_t{header_.block_bytes} * number;
            if (from >= offset && from + size <= end) {
                check(number, stored, into.subspan(static_cast<std::size_t>(from - offset), size));
                at = from + size;
                continue;
            }
            PlainBlock& block = cache_[next_++ % cache_.size()];
            block.number = std::numeric_limits<std::size_t>::max();
            block.bytes.resize(size);
            check(number, stored, MutableView(block.bytes));
            block.number = number;
            at = copy(number, View(block.bytes), offset, into, at);
        }
        return at;
    }

    void check(std::size_t number, View stored, MutableView plain) const {
        const PackedBlock& block = table_[number];
        const auto bad = [&](const std::string& what) {
            corrupt(block.offset, "block " + std::to_string(number) + ": " + what);
        };
        if (stored.size() != block.size) bad("the file ends inside it");
        if (crc_of(header_.uuid, number, stored) != block.crc) bad("its checksum does not fit");
        if (stored.size() == plain.size())
            std::copy(stored.begin(), stored.end(), plain.begin());
        else if (!lz4_decompress(stored, plain))
            bad("it is no LZ4 block of " + std::to_string(plain.size()) + " bytes");
    }

    std::shared_ptr<File> file_;
    std::uint64_t first_index_;
    PackedHeader header_{};
    std::vector<PackedBlock> table_;
    std::array<PlainBlock, 2> cache_;
    std::size_t next_ = 0;
};

}  // namespace

std::shared_ptr<File> open_segment(Env& env, const Row& row, const std::string& path) {
    auto file = env.open(path, Access::read);
    if (!row.packed) return file;
    return std::make_shared<PackedFile>(std::move(file), row);
}

Packer::Packer(std::shared_ptr<File> file, const Row& row) : file_(std::move(file)), table_(1) {
    header_.magic = packed_magic;
    header_.format_version = packed_format_version;
    std::copy(row.uuid.begin(), row.uuid.end(), header_.uuid);
    header_.id = row.id;
    header_.version = row.version;
    header_.block_bytes = packed_block_bytes;
    header_.first_index = row.first_index;
}

void Packer::write(std::uint64_t offset, View bytes) {
    end_ = std::max(end_, offset + bytes.size());
    if (offset < packed_block_bytes && !bytes.empty()) {
        const auto at = static_cast<std::size_t>(offset);
        const std::size_t part = std::min(bytes.size(), packed_block_bytes - at);
        if (head_.size() < at + part) head_.resize(at + part);
        std::copy_n(bytes.begin(), part, head_.begin() + static_cast<std::ptrdiff_t>(at));
        bytes = bytes.subspan(part);
        offset += part;
    }
    if (bytes.empty()) return;
    require(offset == packed_block_bytes * table_.size() + block_.size(),
            "a segment is packed in its order");
    while (!bytes.empty()) {
        const std::size_t part = std::min(bytes.size(), packed_block_bytes - block_.size());
        block_.insert(block_.end(), bytes.begin(),
                      bytes.begin() + static_cast<std::ptrdiff_t>(part));
        bytes = bytes.subspan(part);
        if (block_.size() < packed_block_bytes) continue;
        table_.emplace_back();
        pack(table_.size() - 1, View(block_));
        block_.clear();
    }
}

void Packer::pack(std::size_t number, View plain) {
    const std::size_t before = buffer_.size();
    buffer_.resize(before + plain.size());
    // A compressed block must be shorter than its plain bytes, since equal sizes mean plain bytes.
    const MutableView into = MutableView(buffer_).subspan(before, plain.size() - 1);
    std::size_t size = lz4_compress(plain, into);
    if (size == 0) {
        size = plain.size();
        std::copy(plain.begin(), plain.end(),
                  buffer_.begin() + static_cast<std::ptrdiff_t>(before));
    }
    require(offset_ + before + size <= max_file_size, "a packed segment saves something");
    buffer_.resize(before + size);
    const View stored = View(buffer_).subspan(before);
    table_[number] = {static_cast<std::uint32_t>(offset_ + before),
                      static_cast<std::uint32_t>(size), crc_of(header_.uuid, number, stored)};
    plain_ += plain.size();
    stored_ += size;
    if (buffer_.size() >= write_bytes) write_buffer();
}

void Packer::write_buffer() {
    file_->pwrite(offset_, View(buffer_));
    file_->write_out(offset_, offset_ + buffer_.size());
    offset_ += buffer_.size();
    buffer_.clear();
}

void Packer::finish() {
    if (!block_.empty()) {
        table_.emplace_back();
        pack(table_.size() - 1, View(block_));
    }
    pack(0, View(head_));
    header_.plain_size = end_;
    header_.table_offset = offset_ + buffer_.size();
    header_.blocks = static_cast<std::uint32_t>(table_.size());
    const std::size_t before = buffer_.size();
    buffer_.resize(before + table_.size() * sizeof(PackedBlock));
    for (std::size_t number = 0; number < table_.size(); ++number)
        store(buffer_.data() + before + number * sizeof(PackedBlock), table_[number]);
    header_.table_crc = crc32c(View(buffer_).subspan(before));
    write_buffer();
    stored_ = offset_;
    Bytes head(sizeof header_);
    store(head.data(), header_);
    header_.crc = crc32c(View(head).subspan(crc_from));
    store(head.data(), header_);
    file_->pwrite(0, View(head));
}

}  // namespace copycat

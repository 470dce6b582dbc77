// LZ4 blocks and packed segments from hostile bytes: nothing outside of the buffers is touched,
// nothing is allocated that the file does not bear out, and what reads is what was written.
#include <algorithm>
#include <memory>

#include "crc32c.hpp"
#include "driver.hpp"
#include "fault_env.hpp"
#include "lz4_block.hpp"
#include "packed.hpp"

namespace copycat::native_test {
namespace {

constexpr char path[] = "/disk/1-2.log";

Bytes text(Mutator& rng, std::size_t most) {
    Bytes bytes(rng.below(most + 1));
    const std::uint64_t letters = 1 + rng.below(rng.chance(3) ? 255 : 4);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(rng.below(letters));
    // Matches at every distance.
    for (std::uint64_t copies = rng.below(12); copies > 0 && bytes.size() > 8; --copies) {
        const std::size_t from = rng.below(bytes.size());
        const std::size_t to = rng.below(bytes.size());
        for (std::size_t i = rng.below(300); i > 0; --i)
            bytes[(to + i) % bytes.size()] = bytes[(from + i) % bytes.size()];
    }
    return bytes;
}

// Of exactly this size, so that a byte outside is seen.
std::unique_ptr<std::uint8_t[]> exact(View bytes) {
    auto copy = std::make_unique<std::uint8_t[]>(bytes.size());
    std::copy(bytes.begin(), bytes.end(), copy.get());
    return copy;
}

void block(Mutator& rng) {
    const Bytes plain = text(rng, rng.chance(8) ? lz4_plain_max : 3000);
    const std::size_t room = rng.chance(4) ? rng.below(plain.size() + 20) : plain.size() + 300;
    const auto source = exact(View(plain));
    const auto into = std::make_unique<std::uint8_t[]>(room);
    const std::size_t size =
        lz4_compress(View(source.get(), plain.size()), MutableView(into.get(), room));
    expect(size <= room, "a block fits");
    if (size == 0) return;
    Bytes stored(into.get(), into.get() + size);
    const bool is_changed = !rng.chance(4);
    if (is_changed) rng.mutate(stored, 1 + rng.below(3));
    const std::size_t nbytes = rng.chance(8) ? rng.edge(plain.size()) % 70000 : plain.size();
    const auto from = exact(View(stored));
    const auto back = std::make_unique<std::uint8_t[]>(nbytes);
    const bool is_good =
        lz4_decompress(View(from.get(), stored.size()), MutableView(back.get(), nbytes));
    if (is_changed || nbytes != plain.size()) return;
    expect(is_good && std::equal(plain.begin(), plain.end(), back.get()),
           "what was packed is unpacked");
}

// Checksums that fit again, so that what is behind them is reached.
void fix(Bytes& file) {
    if (file.size() < sizeof(PackedHeader)) return;
    auto header = load<PackedHeader>(file.data());
    if (header.table_offset <= file.size())
        header.table_crc = crc32c(View(file).subspan(header.table_offset));
    store(file.data(), header);
    header.crc = crc32c(View(file).subspan(16, sizeof header - 16));
    store(file.data(), header);
}

void read_as_asked(File& file, const Bytes& plain, Mutator& rng) {
    for (int i = 0; i < 6; ++i) {
        const std::uint64_t offset = rng.below(plain.size() + 40);
        const std::size_t size = rng.below(rng.chance(2) ? 200 : plain.size() + 100);
        const Block block = file.read(offset, size);
        const std::size_t from = std::min<std::size_t>(offset, plain.size());
        const std::size_t many = std::min(size, plain.size() - from);
        expect(block.bytes.size() == many &&
                   std::equal(block.bytes.begin(), block.bytes.end(),
                              plain.begin() + static_cast<std::ptrdiff_t>(from)),
               "a packed segment reads as the plain one");
    }
}

void segment(Mutator& rng) {
    const auto env = make_fault_env(1);
    env->make_directory("/disk");
    Row row;
    row.id = 1;
    row.version = 2;
    row.sealed = row.packed = true;
    Bytes plain(segment_data_offset, 7);
    const Bytes rest = text(rng, 60000);
    plain.insert(plain.end(), rest.begin(), rest.end());
    {
        Packer packer(env->create(path), row);
        const std::size_t late = 100;
        for (std::size_t at = late; at < plain.size();) {
            const std::size_t part = std::min(plain.size() - at, 1 + rng.below(30000));
            packer.write(at, View(plain).subspan(at, part));
            at += part;
        }
        packer.write(0, View(plain).first(late));
        packer.finish();
    }
    read_as_asked(*open_segment(*env, row, path), plain, rng);
    Bytes file = env->read_file(path);
    rng.mutate(file, 1 + rng.below(3));
    if (rng.chance(2)) fix(file);
    env->replace_file(path, View(file));
    try {
        const auto opened = open_segment(*env, row, path);
        // Not what it says of itself, but only what is asked for, is allocated.
        for (int i = 0; i < 4; ++i) opened->read(rng.edge(plain.size()), rng.below(70000));
    } catch (const CorruptError& error) {
        expect(error.path == path && error.offset >= 0, "damage names file and byte");
    } catch (const FormatError&) {
    }
}

void run(Mutator& rng) { rng.chance(20) ? segment(rng) : block(rng); }

}  // namespace
}  // namespace copycat::native_test

int main(int argc, char** argv) {
    return copycat::native_test::drive(argc, argv, 200'000, copycat::native_test::run);
}

#include "crc32c.hpp"

#include <array>
#include <atomic>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace copycat {
namespace {

constexpr std::uint32_t polynomial = 0x82f63b78;  // reflected

// table[k][b]: the crc of byte b followed by k zero bytes ("slicing by 8").
using Table = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr Table make_table() {
    Table table{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        std::uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? polynomial : 0);
        table[0][byte] = crc;
    }
    for (std::size_t slice = 1; slice < 8; ++slice)
        for (std::size_t byte = 0; byte < 256; ++byte) {
            const std::uint32_t before = table[slice - 1][byte];
            table[slice][byte] = (before >> 8) ^ table[0][before & 0xff];
        }
    return table;
}
constexpr Table table = make_table();

std::uint64_t word_at(const std::uint8_t* from) {
    std::uint64_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

std::uint32_t crc_table(const std::uint8_t* bytes, std::size_t size, std::uint32_t crc) {
    for (; size >= 8; size -= 8, bytes += 8) {
        const std::uint64_t word = word_at(bytes) ^ crc;
        crc = 0;
        for (std::size_t slice = 0; slice < 8; ++slice)
            crc ^= table[7 - slice][(word >> (8 * slice)) & 0xff];
    }
    for (; size > 0; --size, ++bytes) crc = (crc >> 8) ^ table[0][(crc ^ *bytes) & 0xff];
    return crc;
}

#if defined(__x86_64__)

// The instruction takes three cycles, and one can begin in each cycle: so three streams of `words`
// words each are computed in parallel, and joined by one carry-less multiplication per stream.
constexpr std::size_t max_words = 128;

// shifts[n] = x^(64 n - 33) mod P, reflected: crc32(0, clmul(c, shifts[n])) moves c over n
// words of zeros (the product of two reflected values stands one bit low, and the
// instruction multiplies by x^32 itself: together 33).
constexpr std::array<std::uint64_t, 2 * max_words + 1> make_shifts() {
    std::array<std::uint64_t, 2 * max_words + 1> shifts{};
    std::uint32_t value = std::uint32_t{1} << 31;  // x^0
    const auto times_x = [](std::uint32_t v) { return (v >> 1) ^ ((v & 1) ? polynomial : 0); };
    for (int power = 0; power < 31; ++power) value = times_x(value);
    for (std::size_t n = 1; n <= 2 * max_words; ++n) {
        shifts[n] = value;
        for (int power = 0; power < 64; ++power) value = times_x(value);
    }
    return shifts;
}
constexpr auto shifts = make_shifts();

__attribute__((target("sse4.2,pclmul"))) inline std::uint64_t moved(std::uint64_t crc,
                                                                    std::size_t words) {
    const __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<long long>(crc)),
                             _mm_cvtsi64_si128(static_cast<long long>(shifts[words])), 0);
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) std::uint32_t crc_hardware(const std::uint8_t* bytes,
                                                                    std::size_t size,
                                                                    std::uint32_t seed) {
    std::uint64_t crc = seed;
    while (size >= 120) {
        const std::size_t words = size / 24 < max_words ? size / 24 : max_words;
        const std::uint8_t* second = bytes + 8 * words;
        const std::uint8_t* third = second + 8 * words;
        std::uint64_t crc_second = 0;
        std::uint64_t crc_third = 0;
        for (std::size_t at = 0; at < 8 * words; at += 8) {
            crc = _mm_crc32_u64(crc, word_at(bytes + at));
            crc_second = _mm_crc32_u64(crc_second, word_at(second + at));
            crc_third = _mm_crc32_u64(crc_third, word_at(third + at));
        }
        const std::uint64_t both = moved(crc, 2 * words) ^ moved(crc_second, words);
        crc = _mm_crc32_u64(0, both) ^ crc_third;
        bytes = third + 8 * words;
        size -= 24 * words;
    }
    for (; size >= 8; size -= 8, bytes += 8) crc = _mm_crc32_u64(crc, word_at(bytes));
    auto narrow = static_cast<std::uint32_t>(crc);
    for (; size > 0; --size, ++bytes) narrow = _mm_crc32_u8(narrow, *bytes);
    return narrow;
}

bool has_hardware() {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

#elif defined(__aarch64__) && defined(__linux__)

__attribute__((target("+crc"))) std::uint32_t crc_hardware(const std::uint8_t* bytes,
                                                           std::size_t size, std::uint32_t crc) {
    for (; size >= 8; size -= 8, bytes += 8) crc = __crc32cd(crc, word_at(bytes));
    for (; size > 0; --size, ++bytes) crc = __crc32cb(crc, *bytes);
    return crc;
}

bool has_hardware() { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }

#else

std::uint32_t crc_hardware(const std::uint8_t* bytes, std::size_t size, std::uint32_t crc) {
    return crc_table(bytes, size, crc);
}

bool has_hardware() { return false; }

#endif

const bool hardware = has_hardware();
std::atomic<bool> table_forced{false};

}  // namespace

std::uint32_t crc32c(View bytes, std::uint32_t seed) {
    const bool use_table = !hardware || table_forced.load(std::memory_order_relaxed);
    return ~(use_table ? crc_table(bytes.data(), bytes.size(), ~seed)
                       : crc_hardware(bytes.data(), bytes.size(), ~seed));
}

bool crc32c_is_hardware() { return hardware && !table_forced.load(std::memory_order_relaxed); }

bool crc32c_force_table(bool on) { return table_forced.exchange(on); }

}  // namespace copycat

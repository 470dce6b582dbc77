#include "driver.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "errors.hpp"

// Of the sanitizers' runtime, where there is one.
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace copycat::native_test {
namespace {

const char* program = "";
std::uint64_t base_seed = 1;
std::uint64_t number = 0;

void tell_where() {
    std::fprintf(stderr, "in run %llu; repeat it with: %s 1 %llu %llu\n",
                 static_cast<unsigned long long>(number), program,
                 static_cast<unsigned long long>(base_seed),
                 static_cast<unsigned long long>(number));
}

constexpr std::array<std::uint64_t, 14> edges = {0,
                                                 1,
                                                 7,
                                                 8,
                                                 0x7f,
                                                 0xff,
                                                 0x7fffffff,
                                                 0x80000000,
                                                 0xffffffff,
                                                 0x100000000,
                                                 0x7fffffffffffffff,
                                                 0x8000000000000000,
                                                 0xfffffffffffffff8,
                                                 0xffffffffffffffff};

}  // namespace

void fail(const std::string& law) {
    std::fprintf(stderr, "FAILED: %s\n", law.c_str());
    tell_where();
    std::abort();
}

std::uint64_t Mutator::edge(std::uint64_t around) {
    const std::uint64_t pick = below(edges.size() + 5);
    return pick < edges.size() ? edges[pick] : around + (pick - edges.size()) - 2;
}

void Mutator::mutate(Bytes& bytes, std::uint64_t changes) {
    for (; changes > 0; --changes) change(bytes);
}

void Mutator::change(Bytes& bytes) {
    const std::uint64_t way = bytes.empty() ? 11 : below(12);
    if (way >= 8) return change_size(bytes, way);
    const std::size_t at = below(bytes.size());
    const std::size_t aligned = at & ~std::size_t{7};
    const std::size_t room = bytes.size() - aligned;
    switch (way) {
        case 0:
        case 1:
            bytes[at] ^= static_cast<std::uint8_t>(1 << below(8));
            break;
        case 2:
            bytes[at] = static_cast<std::uint8_t>(edge(bytes[at]));
            break;
        case 3: {
            const std::uint64_t value = edge(bytes.size());
            std::memcpy(bytes.data() + aligned, &value, std::min<std::size_t>(8, room));
            break;
        }
        case 4: {
            const auto value = static_cast<std::uint32_t>(edge(bytes.size()));
            const std::size_t to = at & ~std::size_t{3};
            std::memcpy(bytes.data() + to, &value, std::min<std::size_t>(4, bytes.size() - to));
            break;
        }
        case 5: {  // a record in the place of another
            const std::size_t from = below(bytes.size()) & ~std::size_t{7};
            const std::size_t size = std::min(room, bytes.size() - from);
            std::memmove(bytes.data() + aligned, bytes.data() + from,
                         std::min<std::size_t>(size, 8 + below(120)));
            break;
        }
        case 6:
            std::memset(bytes.data() + aligned, 0, std::min<std::size_t>(room, 8 + below(600)));
            break;
        default:
            for (std::size_t i = at; i < std::min(bytes.size(), at + 16); ++i)
                bytes[i] = static_cast<std::uint8_t>(word());
    }
}

void Mutator::change_size(Bytes& bytes, std::uint64_t way) {
    const std::size_t at = bytes.empty() ? 0 : below(bytes.size());
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at & ~std::size_t{7});
    switch (way) {
        case 8:
            bytes.resize(at);
            break;
        case 9:
            bytes.erase(place, place + std::min<std::ptrdiff_t>(8, bytes.end() - place));
            break;
        case 10:
            bytes.insert(place, 8, static_cast<std::uint8_t>(word()));
            break;
        default:
            bytes.resize(bytes.size() + 1 + below(64), static_cast<std::uint8_t>(word()));
    }
}

int drive(int argc, char** argv, std::uint64_t runs, const std::function<void(Mutator&)>& run) {
    const auto argument = [&](int place, std::uint64_t otherwise) {
        return argc > place ? std::strtoull(argv[place], nullptr, 10) : otherwise;
    };
    program = argv[0];
    runs = argument(1, runs);
    base_seed = argument(2, 1);
    const std::uint64_t first = argument(3, 0);
    if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(tell_where);
    const auto begun = std::chrono::steady_clock::now();
    for (number = first; number < first + runs; ++number) {
        Mutator rng(base_seed * 0x9e3779b97f4a7c15 + number);
        try {
            run(rng);
        } catch (const std::exception& error) {
            fail(std::string("an error that nobody expects: ") + error.what());
        }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    std::printf("%s: %llu runs from seed %llu in %.1f s, %.0f a second\n", program,
                static_cast<unsigned long long>(runs), static_cast<unsigned long long>(base_seed),
                took.count(), static_cast<double>(runs) / std::max(took.count(), 1e-9));
    return 0;
}

}  // namespace copycat::native_test

// What the drivers share: numbered runs with random numbers of their own, mutations, and how a
// failure is reported. The same seed and number give the same run on every machine.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "fault_disk.hpp"
#include "types.hpp"

namespace copycat::native_test {

// Prints the law, the number of the run and the command that repeats it; aborts.
[[noreturn]] void fail(const std::string& law);

inline void expect(bool law, const char* words) {
    if (!law) [[unlikely]]
        fail(words);
}

// The random numbers of one run, and how it damages bytes.
class Mutator {
public:
    explicit Mutator(std::uint64_t seed) : rng_(seed) {}

    std::uint64_t below(std::uint64_t limit) { return rng_.below(limit); }
    bool chance(std::uint64_t one_in) { return rng_.below(one_in) == 0; }
    std::uint64_t word() { return rng_.draw(); }
    // Numbers at which sizes and offsets break: limits of their types, and near `around`.
    std::uint64_t edge(std::uint64_t around);
    // `changes` changes: bits, bytes, words at the edges, ranges copied, zeroed, cut, grown.
    void mutate(Bytes& bytes, std::uint64_t changes);

private:
    void change(Bytes& bytes);
    void change_size(Bytes& bytes, std::uint64_t way);

    SeededRandom rng_;
};

// argv: [runs [seed [first]]]. Calls `run` with the random numbers of each and prints the rate.
int drive(int argc, char** argv, std::uint64_t runs, const std::function<void(Mutator&)>& run);

}  // namespace copycat::native_test

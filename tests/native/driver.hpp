// What the drivers share: numbered runs with dice of their own, mutations, and how a failure is
// told. Same seed and number, same run, on every machine.
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

// The dice of one run, and what it may do to bytes.
class Mutator {
public:
    explicit Mutator(std::uint64_t seed) : dice_(seed) {}

    std::uint64_t below(std::uint64_t limit) { return dice_.below(limit); }
    bool chance(std::uint64_t one_in) { return dice_.below(one_in) == 0; }
    std::uint64_t word() { return dice_.draw(); }
    // Numbers at which sizes and offsets break: limits of their types, and near `around`.
    std::uint64_t edge(std::uint64_t around);
    // `changes` changes: bits, bytes, words at the edges, ranges copied, zeroed, cut, grown.
    void mutate(Bytes& bytes, std::uint64_t changes);

private:
    void change(Bytes& bytes);
    void change_size(Bytes& bytes, std::uint64_t way);

    Dice dice_;
};

// argv: [runs [seed [first]]]. Calls `run` with the dice of each and prints the rate.
int drive(int argc, char** argv, std::uint64_t runs, const std::function<void(Mutator&)>& run);

}  // namespace copycat::native_test

// The two copies of term and vote, damaged: one bad copy costs nothing, two are an error, and
// what is read was written (C9, F5, F6).
#include <cstring>
#include <optional>

#include "crc32c.hpp"
#include "driver.hpp"
#include "fault_env.hpp"
#include "hard_state.hpp"

namespace copycat::native_test {
namespace {

const std::string directory = "/d";
const std::string copies[2] = {"/d/hard-state-a", "/d/hard-state-b"};

std::array<std::uint8_t, 16> vote_of(std::uint64_t term) {
    std::array<std::uint8_t, 16> vote{};
    vote[0] = static_cast<std::uint8_t>(term * 7);
    return vote;
}

void save(HardState& state, std::uint64_t term) {
    const auto ticket = state.begin_save(term, vote_of(term));
    ticket->run();
    state.end_save(*ticket);
}

void replace(FaultEnv& env, const std::string& path, const Bytes& bytes) {
    env.remove(path);
    const auto file = env.create(path);
    file->pwrite(0, View(bytes));
    file->fsync();
    env.sync_directory(directory);
}

// True when the copy at `path` is another one now, and not one that any save wrote.
bool damage(FaultEnv& env, Mutator& rng, const std::string& path, bool is_fixed) {
    const Bytes before = env.read_file(path);
    if (rng.chance(8)) {
        env.remove(path);
        return true;
    }
    Bytes bytes = before;
    rng.mutate(bytes, 1 + rng.below(3));
    if (is_fixed && bytes.size() == sizeof(HardStateBlock))
        store(bytes.data() + 12, crc32c(View(bytes).subspan(16)));
    replace(env, path, bytes);
    return bytes != before;
}

std::optional<HardValue> opened(const std::shared_ptr<FaultEnv>& env) {
    const std::uint64_t before = env->digest();
    try {
        return HardState(env, directory, false).value();
    } catch (const CorruptError&) {
    } catch (const FormatError&) {
    } catch (const NotFoundError&) {
    }
    expect(env->digest() == before, "a refusal changes nothing");
    return std::nullopt;
}

void run(Mutator& rng) {
    const auto env = make_fault_env(rng.word());
    env->make_directory(directory);
    std::uint64_t term = 1 + rng.below(5);
    {
        HardState state(env, directory, true);
        for (std::uint64_t saves = 1 + rng.below(3); saves > 0; --saves) save(state, ++term);
        if (rng.chance(4)) {
            // Cut inside a save of the next term, which nobody was promised.
            env->stop_after(rng.below(9));
            try {
                save(state, term + 1);
                term += 1;
            } catch (const IoError&) {
            }
        }
    }
    env->crash(rng.word(), rng.chance(2));
    const std::optional<HardValue> whole = opened(env);
    expect(whole && (whole->term == term || whole->term == term + 1), "a saved term stays");
    expect(whole->voted_for == vote_of(whole->term), "a vote stays with its term");

    const bool is_fixed = rng.chance(3);
    const bool is_both = rng.chance(2);
    const std::size_t first = rng.below(2);
    const bool is_first_bad = damage(*env, rng, copies[first], is_fixed);
    const bool is_second_bad = is_both && damage(*env, rng, copies[1 - first], is_fixed);
    const std::optional<HardValue> value = opened(env);
    if (is_fixed) return;
    if (is_first_bad && is_second_bad) return expect(!value, "two bad copies are no vote");
    expect(value && value->term == whole->term && value->voted_for == whole->voted_for,
           "one good copy is enough");
    env->crash(rng.word());
    const std::optional<HardValue> again = opened(env);
    expect(again && again->term == value->term, "what was repaired is durable");
    HardState state(env, directory, false);
    expect(state.repaired() == 0, "a repair is done once");
    save(state, value->term + 1);
    expect(opened(env)->term == value->term + 1, "and continues from there");
}

}  // namespace
}  // namespace copycat::native_test

int main(int argc, char** argv) {
    return copycat::native_test::drive(argc, argv, 200'000, copycat::native_test::run);
}

#include "hard_state.hpp"

#include <cstring>
#include <optional>

#include "crc32c.hpp"

namespace copycat {
namespace {

constexpr std::size_t block_size = sizeof(HardStateBlock);
constexpr std::size_t crc_begin = offsetof(HardStateBlock, generation);

Bytes encode(const HardValue& value) {
    HardStateBlock block{};
    block.magic = hard_state_magic;
    block.format_version = format_version;
    block.generation = value.generation;
    block.term = value.term;
    std::memcpy(block.voted_for, value.voted_for.data(), value.voted_for.size());
    Bytes bytes(block_size);
    store(bytes.data(), block);
    block.crc = crc32c(View(bytes).subspan(crc_begin));
    store(bytes.data(), block);
    return bytes;
}

// One copy: missing, a value, of another format version, or else bad. A sector that the disk
// cannot read makes a copy bad, as a changed byte does (F5).
struct Copy {
    bool missing = false;
    std::optional<HardValue> value;
    std::optional<std::uint32_t> other_version;
};

// Errors about stored bytes, unlike a lack of descriptors or memory.
bool is_unreadable(int number) {
    return number == EIO || number == EBADMSG || number == EUCLEAN || number == ENODATA;
}

Copy read_copy(Env& env, const std::string& path) {
    if (!env.exists(path)) return Copy{true, {}, {}};
    Bytes bytes;
    try {
        bytes = env.read_file(path, std::uint64_t{1} << 20);
    } catch (const IoError& error) {
        if (!is_unreadable(error.number)) throw;
        return {};
    }
    if (bytes.size() != block_size) return {};
    const auto block = load<HardStateBlock>(bytes.data());
    if (block.magic != hard_state_magic) return {};
    if (block.crc != crc32c(View(bytes).subspan(crc_begin))) return {};
    if (block.format_version != format_version) return Copy{false, {}, block.format_version};
    HardValue value{block.generation, block.term, {}};
    std::memcpy(value.voted_for.data(), block.voted_for, value.voted_for.size());
    return Copy{false, value, {}};
}

std::string path_a(const std::string& directory) { return join(directory, "hard-state-a"); }
std::string path_b(const std::string& directory) { return join(directory, "hard-state-b"); }

[[noreturn]] void refuse(const std::string& directory, const Copy& copy) {
    if (copy.other_version)
        throw FormatError("the hard state in " + directory + " has format version " +
                              std::to_string(*copy.other_version) + "; this copycat knows " +
                              std::to_string(format_version),
                          directory);
    throw CorruptError("no readable copy of term and vote is left in " + directory +
                           ": refuse to start, a forgotten vote could elect twice",
                       path_a(directory), 0);
}

}  // namespace

HardState::HardState(std::shared_ptr<Env> env, const std::string& directory, bool create)
    : env_(std::move(env)), directory_(directory) {
    const Copy a = read_copy(*env_, path_a(directory));
    const Copy b = read_copy(*env_, path_b(directory));
    if (a.missing && b.missing) {
        if (!create) throw_io("open", path_a(directory), ENOENT);
        rewrite();
        return;
    }
    // A copy of an unknown version counts as bad: a save is done only when both are written.
    if (!a.value && !b.value) refuse(directory, a.other_version ? a : b);
    const bool use_a = a.value && (!b.value || a.value->generation >= b.value->generation);
    value_ = use_a ? *a.value : *b.value;
    const Bytes bytes = encode(value_);
    const auto repair = [&](const Copy& copy, const std::string& path) {
        if (copy.value && copy.value->generation == value_.generation) return;
        env_->replace_file(path, bytes);
        ++repaired_;
    };
    repair(a, path_a(directory));
    repair(b, path_b(directory));
}

std::shared_ptr<HardState::Ticket> HardState::ticket_for(const HardValue& value) const {
    auto ticket = std::make_shared<Ticket>();
    ticket->value = value;
    ticket->env_ = env_;
    ticket->directory_ = directory_;
    return ticket;
}

std::shared_ptr<HardState::Ticket> HardState::begin_save(
    std::uint64_t term, const std::array<std::uint8_t, 16>& voted_for) {
    if (last_ && last_->failed)
        throw PoisonedError("an earlier save of the hard state failed in " + directory_,
                            directory_, last_->number);
    require(!saving_, "one save of the hard state at a time");
    require(term >= value_.term, "the term never decreases (I2)");
    const bool revote = term == value_.term && value_.voted_for != voted_for &&
                        value_.voted_for != std::array<std::uint8_t, 16>{};
    require(!revote, "one vote a term (I2)");
    last_ = ticket_for(HardValue{value_.generation + 1, term, voted_for});
    saving_ = true;
    return last_;
}

void HardState::Ticket::run() {
    require(!done && !failed, "a save runs once");
    const Bytes bytes = encode(value);
    try {
        // One copy after the other, then one sync of the directory. If a crash tears or loses a
        // copy, the other one is good, and the vote was not sent before the end (C9).
        env_->replace_file(path_a(directory_), bytes, false);
        env_->replace_file(path_b(directory_), bytes, false);
        env_->sync_directory(directory_);
    } catch (const ResourceError&) {
        throw;
    } catch (const IoError& error) {
        number = error.number;
        failed = true;
        throw;
    }
    done = true;
}

void HardState::end_save(const Ticket& ticket) {
    require(saving_ && &ticket == last_.get(), "a save ends once, in its own hard state");
    require(ticket.done, "a save ends after its run returned");
    value_ = ticket.value;
    saving_ = false;
}

void HardState::rewrite() {
    const auto ticket = begin_save(value_.term, value_.voted_for);
    or_undo([&] { ticket->run(); }, [&] { saving_ = false; });
    end_save(*ticket);
}

}  // namespace copycat

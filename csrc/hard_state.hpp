// current_term and voted_for, in two files, each of which is replaced as a whole (C9, F5, F6).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "env.hpp"
#include "format.hpp"

namespace copycat {

struct HardValue {
    std::uint64_t generation = 0;
    std::uint64_t term = 0;
    std::array<std::uint8_t, 16> voted_for{};
};

class HardState {
public:
    // If both files are missing: with `create` they are written with term 0, else NotFoundError.
    // CorruptError if neither can be read (F6).
    HardState(std::shared_ptr<Env> env, const std::string& directory, bool create);

    const HardValue& value() const { return value_; }
    // How many copies open() had to write again (F5).
    std::uint32_t repaired() const { return repaired_; }

    class Ticket : public Work {
    public:
        // Writes both copies. Any thread. May be called again after a ResourceError: the vote was
        // not sent to anybody yet.
        void run() override;
        HardValue value;
        std::atomic<bool> done = false;
        std::atomic<bool> failed = false;
        int number = 0;  // errno of the failure

    private:
        friend class HardState;
        std::shared_ptr<Env> env_;
        std::string directory_;
    };
    // Begins a save, which any thread may run. At most one at a time.
    std::shared_ptr<Ticket> begin_save(std::uint64_t term,
                                       const std::array<std::uint8_t, 16>& voted_for);
    void end_save(const Ticket& ticket);
    // Writes and syncs both copies again, with a new generation (C7).
    void rewrite();

private:
    std::shared_ptr<Ticket> ticket_for(const HardValue& value) const;

    std::shared_ptr<Env> env_;
    std::string directory_;
    HardValue value_;
    bool saving_ = false;
    std::shared_ptr<Ticket> last_;
    std::uint32_t repaired_ = 0;
};

}  // namespace copycat

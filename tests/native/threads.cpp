// A log with all the threads that a server has around it, on the real file system, so that no
// lock of a disk in memory orders what the log itself must order. Run under ThreadSanitizer.
//
// loop: append, begin and end syncs, roll, truncate, trim, read, idle marks, release, begin,
// install and abandon rewrites, at the end close over one that runs
// sync: SyncTicket::run; aside: prepare_spare, remove_orphans; hard state: Ticket::run; compact:
// Rewrite::run, two of them; readers: what was read before, while the log continues without it.
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "driver.hpp"
#include "hard_state.hpp"
#include "log.hpp"

namespace copycat::native_test {
namespace {

constexpr std::size_t reads_max = 16;

// One thread that takes jobs in order; `idle` says whether all are done.
class Worker {
public:
    Worker() : thread_([this] { work(); }) {}
    ~Worker() {
        {
            const std::lock_guard lock(mutex_);
            is_over_ = true;
        }
        changed_.notify_one();
        thread_.join();
    }
    void give(std::function<void()> job) {
        {
            const std::lock_guard lock(mutex_);
            jobs_.push_back(std::move(job));
        }
        changed_.notify_one();
    }

private:
    void work() {
        std::unique_lock lock(mutex_);
        while (true) {
            changed_.wait(lock, [this] { return is_over_ || !jobs_.empty(); });
            if (jobs_.empty()) return;
            const std::function<void()> job = std::move(jobs_.front());
            jobs_.pop_front();
            lock.unlock();
            job();
            lock.lock();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> jobs_;
    bool is_over_ = false;
    std::thread thread_;
};

struct ReadFrames {
    Frames frames;
    std::uint32_t hash = 0;
};

// The loop thread of a member, whose steps are drawn at random.
class Loop {
public:
    Loop(const std::shared_ptr<Env>& env, const std::string& directory, const LogOptions& options)
        : log_(env, join(directory, "log"), options), hard_state_(env, directory, true) {}

    void step(Mutator& rng) {
        take_completed();
        append(rng);
        if (sync_ == nullptr) {
            sync_ = log_.begin_sync();
            is_synced_ = false;
            syncer_.give([this] {
                sync_->run();
                is_synced_.store(true, std::memory_order_release);
            });
        }
        if (!is_preparing_.load(std::memory_order_acquire) && log_.wants_spare()) {
            is_preparing_ = true;
            aside_.give([this] {
                log_.prepare_spare();
                is_preparing_.store(false, std::memory_order_release);
            });
        }
        if (!is_removing_.load(std::memory_order_acquire) && log_.has_obsolete_files()) {
            is_removing_ = true;
            aside_.give([this] {
                log_.remove_obsolete_files();
                is_removing_.store(false, std::memory_order_release);
            });
        }
        if (rng.chance(8)) vote();
        if (rng.chance(20)) truncate(rng);
        if (rng.chance(16)) log_.trim(log_.durable_index());
        if (rng.chance(10)) log_.mark_idle();
        if (rng.chance(3)) read(rng);
        if (rng.chance(2)) release(rng);
        for (Compaction& each : compactions_)
            if (each.rewrite == nullptr) {
                if (rng.chance(4)) rewrite(rng, each);
            } else if (rng.chance(40)) {
                each.rewrite->abandon();  // its run may be under way
                each.is_abandoned = true;
            }
    }

    // Rewrites that run still are the log's to end.
    void finish() {
        while (sync_ != nullptr || save_ != nullptr || is_preparing_ || is_removing_) {
            take_completed();
            std::this_thread::yield();
        }
        log_.close();
    }
    std::uint64_t durable_index() const { return log_.durable_index(); }
    std::uint64_t dropped() const { return dropped_; }

private:
    // One rewrite at a time, in a thread of its own.
    struct Compaction {
        std::shared_ptr<Rewrite> rewrite;
        std::atomic<bool> was_run{false};
        bool is_abandoned = false;
    };

    void take_completed() {
        if (sync_ != nullptr && is_synced_.load(std::memory_order_acquire)) {
            log_.end_sync(*sync_);
            sync_.reset();
        }
        if (save_ != nullptr && save_->done) {
            hard_state_.end_save(*save_);
            save_.reset();
        }
        for (Compaction& each : compactions_) {
            if (each.rewrite == nullptr || !each.was_run.load(std::memory_order_acquire)) continue;
            if (!each.is_abandoned) dropped_ += log_.install(*each.rewrite).entries_dropped;
            each.rewrite.reset();
        }
    }

    void release(Mutator& rng) {
        const std::uint64_t first = log_.first_index();
        const std::uint64_t count = log_.last_index() + 1 - first;
        if (count == 0) return;
        std::vector<std::uint64_t> indexes;
        const std::uint64_t step = 1 + rng.below(3);
        for (std::uint64_t at = rng.below(count); at < count && indexes.size() < 40; at += step)
            indexes.push_back(first + at);
        log_.release(indexes, rng.chance(2) ? Release::any : Release::sequential);
    }

    // Neighbours in one group; those that the other rewrite would write are refused.
    void rewrite(Mutator& rng, Compaction& into) {
        const Limits limits{log_.durable_index(), log_.durable_index(), 0};
        std::vector<std::uint64_t> ids;
        for (const SegmentStats& row : log_.segment_stats(limits))
            if (row.sealed) ids.push_back(row.id);
        if (ids.empty()) return;
        ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(rng.below(ids.size())));
        ids.resize(std::min<std::size_t>(ids.size(), 1 + rng.below(3)));
        try {
            into.rewrite = log_.rewrite({ids}, limits, rng.chance(2));
        } catch (const std::invalid_argument&) {
            return;
        }
        into.was_run = false;
        into.is_abandoned = false;
        compactors_[&into - compactions_].give([&into, rewrite = into.rewrite] {
            rewrite->run();
            into.was_run.store(true, std::memory_order_release);
        });
    }

    void append(Mutator& rng) {
        const Bytes payload(rng.below(300), static_cast<std::uint8_t>(term_));
        const std::vector<EncodeItem> items(
            1 + rng.below(6),
            EncodeItem{static_cast<std::uint8_t>(Kind::tick), 0, 0, 0, 1, View(payload)});
        log_.append(encode_batch(term_, log_.last_index() + 1, 1, items));
    }

    void vote() {
        if (save_ != nullptr) return;
        save_ = hard_state_.begin_save(++term_, {});
        saver_.give([save = save_] { save->run(); });
    }

    void truncate(Mutator& rng) {
        const std::uint64_t low = log_.first_index() - 1;
        log_.truncate(low + rng.below(log_.last_index() - low + 1));
        ++term_;
    }

    void read(Mutator& rng) {
        const std::uint64_t first = log_.first_index();
        const std::uint64_t last = log_.last_index();
        if (last < first) return;
        const std::uint64_t from = first + rng.below(last - first + 1);
        ReadFrames one{log_.read(from, last + 1, rng.below(20'000)), 0};
        one.hash = frames_hash(one.frames.block.bytes);
        reads_.push_back(one);
        if (reads_.size() > reads_max) reads_.pop_front();
        readers_[rng.below(2)].give([one = reads_[rng.below(reads_.size())]] {
            verify_frames(one.frames.block.bytes, one.frames.span);
            expect(frames_hash(one.frames.block.bytes) == one.hash, "a view stays as it was");
        });
    }

    SegmentedLog log_;
    HardState hard_state_;
    std::uint64_t term_ = 1;
    std::shared_ptr<SyncTicket> sync_;
    std::shared_ptr<HardState::Ticket> save_;
    std::atomic<bool> is_synced_{false};
    std::atomic<bool> is_preparing_{false};
    std::atomic<bool> is_removing_{false};
    std::deque<ReadFrames> reads_;
    Compaction compactions_[2];
    std::uint64_t dropped_ = 0;
    // Last, so that they end first.
    Worker syncer_;
    Worker saver_;
    Worker aside_;
    Worker readers_[2];
    Worker compactors_[2];
};

std::uint64_t dropped_in_all = 0;

// One life of a member: some hundred turns, a close, and the log is there again.
void run(Mutator& rng) {
    const auto env = make_posix_env();
    char name[] = "/tmp/copycat-threads-XXXXXX";
    expect(mkdtemp(name) != nullptr, "a directory for the log can be made");
    const std::string directory = name;
    std::uint64_t durable_index = 0;
    LogOptions options{65536, 40, 0, false};
    options.mapped = rng.chance(2);
    options.compress = rng.chance(2);
    {
        Loop loop(env, directory, options);
        for (std::uint64_t turns = 150 + rng.below(150); turns > 0; --turns) loop.step(rng);
        loop.finish();
        durable_index = loop.durable_index();
        dropped_in_all += loop.dropped();
    }
    {
        SegmentedLog again(env, join(directory, "log"), options);
        expect(again.report().clean, "a closed log was stopped cleanly");
        expect(again.last_index() == durable_index, "what was durable is there");
    }
    for (const std::string& child : {join(directory, "log"), directory})
        for (const std::string& file : env->list(child))
            if (join(child, file) != join(directory, "log")) env->unlink(join(child, file));
}

}  // namespace
}  // namespace copycat::native_test

int main(int argc, char** argv) {
    const int failed = copycat::native_test::drive(argc, argv, 60, copycat::native_test::run);
    copycat::native_test::expect(copycat::native_test::dropped_in_all > 0,
                                 "nothing was compacted");
    return failed;
}

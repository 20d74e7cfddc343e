// Writes numbered blocks to the first disk, flushes, and only then calls them acknowledged: from then on they
// must be readable, whatever moves where. O_DIRECT, so that every request reaches the device.

#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "disk_block.hpp"
#include "runtime/guest.hpp"
#include "service.hpp"

namespace selfcheck {
namespace {

constexpr const char* kDevice = "/dev/vda";
constexpr uint64_t kMaxBatch = 16;  // blocks

class Disk : public Service {
  public:
    void start(const guest::Parameters& parameters, guest::Fields& ready) override {
        pause_ = std::chrono::milliseconds(parameters.number("godwit.disk_ms", 20));
        seed_ = parameters.number("godwit.seed", 1);
        const uint64_t limit = parameters.number("godwit.disk", 16) << 20;  // bytes
        descriptor_ = limit == 0 ? -1 : open(kDevice, O_RDWR | O_DIRECT | O_CLOEXEC);
        const off_t size = descriptor_ < 0 ? 0 : lseek(descriptor_, 0, SEEK_END);
        count_ = std::min<uint64_t>(size < 0 ? 0 : static_cast<uint64_t>(size), limit) / sizeof(DiskBlock);
        ready.number("disk_blocks", count_);
        if (count_ != 0) {
            std::thread([this] { run(); }).detach();
        }
    }

    void report(guest::Fields& counters) const override {
        if (count_ != 0) {
            counters.number("disk_acked", acknowledged_).number("disk_max_us", slowest_us_);
        }
    }

    bool verify(guest::Fields& findings) override {
        const std::lock_guard lock(mutex_);
        const uint64_t last = acknowledged_;
        for (uint64_t first = last > count_ ? last - count_ + 1 : 1; first <= last;) {
            const uint64_t blocks = std::min(blocks_from(first), last - first + 1);
            if (!read_back(first, blocks, findings)) {
                return false;
            }
            first += blocks;
        }
        return true;
    }

  private:
    off_t offset_of(uint64_t sequence) const {
        return static_cast<off_t>((sequence - 1) % count_ * sizeof(DiskBlock));
    }

    // How many blocks, from this one on, one request may take: it does not go past the end of the disk.
    uint64_t blocks_from(uint64_t sequence) const {
        return std::min(kMaxBatch, count_ - (sequence - 1) % count_);
    }

    bool read_back(uint64_t first, uint64_t blocks, guest::Fields& findings) {
        const std::size_t bytes = blocks * sizeof(DiskBlock);
        if (pread(descriptor_, batch_.data(), bytes, offset_of(first)) != static_cast<ssize_t>(bytes)) {
            findings.text("reason", "disk_read_failed").number("sequence", first);
            findings.signed_number("errno", errno);
            return false;
        }
        for (uint64_t block = 0; block < blocks; ++block) {
            const DiskBlock& got = batch_[block];
            DiskBlock want;
            want.make(seed_, first + block, count_);
            if (got != want) {
                findings.text("reason", "bad_block").number("block", want.words[3]);
                findings.number("sequence", first + block);
                findings.hex("got_magic", got.words[0]).number("got_sequence", got.words[2]);
                return false;
            }
        }
        return true;
    }

    void write_batch(uint64_t first, uint64_t blocks) {
        for (uint64_t block = 0; block < blocks; ++block) {
            batch_[block].make(seed_, first + block, count_);
        }
        const std::size_t bytes = blocks * sizeof(DiskBlock);
        const bool written =
            pwrite(descriptor_, batch_.data(), bytes, offset_of(first)) == static_cast<ssize_t>(bytes);
        if (!written || fsync(descriptor_) != 0) {
            guest::fail(guest::Fields()
                            .text("reason", written ? "disk_flush_failed" : "disk_write_failed")
                            .number("sequence", first)
                            .signed_number("errno", errno));
        }
        acknowledged_ = first + blocks - 1;
    }

    void run() {
        guest::SplitMix choice(seed_);
        for (;; std::this_thread::sleep_for(pause_)) {
            const std::lock_guard lock(mutex_);
            const uint64_t first = acknowledged_ + 1;
            const uint64_t blocks = std::min(1 + choice.below(kMaxBatch), blocks_from(first));
            const auto begin = std::chrono::steady_clock::now();
            write_batch(first, blocks);
            const auto took = std::chrono::steady_clock::now() - begin;
            const auto us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
            slowest_us_ = std::max(slowest_us_.load(), static_cast<uint64_t>(us));
            guest::Fields findings;
            const uint64_t kept = std::min<uint64_t>(acknowledged_, count_);
            if (!read_back(acknowledged_ - choice.below(kept), 1, findings)) {
                guest::fail(findings);
            }
        }
    }

    int descriptor_ = -1;
    uint64_t count_ = 0;  // blocks
    uint64_t seed_ = 0;
    std::chrono::milliseconds pause_{};
    std::mutex mutex_;  // while it is free, everything written is acknowledged
    std::vector<DiskBlock> batch_{kMaxBatch};
    std::atomic<uint64_t> acknowledged_ = 0;  // the last sequence number
    std::atomic<uint64_t> slowest_us_ = 0;    // write and flush of a batch
};

}  // namespace

std::unique_ptr<Service> make_disk() {
    return std::make_unique<Disk>();
}

}  // namespace selfcheck

// DiskImage: a raw file or block device of the host as a guest's disk, and the locks that keep it to one
// guest.
//
// Two locks (open file description locks, fcntl(2)) on bytes far behind any data: `owner` for the process
// whose guest uses the disk, `heir` for one that is about to. Starting a guest and receiving one take `heir`
// first; whoever gets `owner` gives `heir` up. So a disk that somebody may be about to receive is not given
// to a third. Read-only disks take shared locks. Network file systems pass these locks on to other hosts;
// those of a block device are its host's alone.
#pragma once

#include <string>

#include "devices/virtio/flusher.hpp"
#include "vmm/base/unique_fd.hpp"
#include "vmm/guest/exclusive.hpp"

namespace devices::virtio {

struct DiskConfig {
    std::string path;
    bool read_only = false;
    bool direct = false;  // O_DIRECT: for images that other hosts use too
};

inline constexpr std::uint64_t kSectorBytes =
    512;  // 5.2.4: of the unit of every sector number, whatever the disk

class DiskImage final : public vmm::Exclusive {
  public:
    // Opens it and takes `heir`. Nothing is read from it before `owner` is held.
    static vmm::Result<std::unique_ptr<DiskImage>> open(const DiskConfig& config);

    int fd() const { return fd_.get(); }
    std::uint64_t sectors() const { return sectors_; }
    bool read_only() const { return config_.read_only; }

    // Takes `owner`. Waits a second for a process on its way out.
    vmm::Result<void> take() override;
    // fdatasync(2); a read-only disk needs none.
    vmm::Result<void> begin_flush() override;
    vmm::Result<void> wait_flushed(vmm::Duration limit) override;
    // Such a flush has failed: the guest, which has not been told yet, must not hear that its writes are
    // safe. Any thread.
    bool lost() const { return flusher_.failed(); }
    // Then `owner` is free.
    vmm::Result<void> give() override;

  private:
    enum class Lock : std::uint8_t { owner, heir };
    enum class Want : std::uint8_t { held, free };

    DiskImage(DiskConfig config, vmm::UniqueFd fd, std::uint64_t sectors)
        : config_(std::move(config)),
          fd_(std::move(fd)),
          sectors_(sectors),
          flusher_(fd_.get(), config_.path) {}

    // False: another process has it.
    vmm::Result<bool> set(Lock lock, Want want) const;
    vmm::Result<void> insist(Lock lock) const;

    const DiskConfig config_;
    const vmm::UniqueFd fd_;
    const std::uint64_t sectors_;
    bool owned_ = false;
    Flusher flusher_;
};

// What a preflight says of a disk that a guest elsewhere uses: its sectors, or why it cannot be used here.
// Takes no lock.
vmm::Result<std::uint64_t> examine_disk(const DiskConfig& config);

}  // namespace devices::virtio

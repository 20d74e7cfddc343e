// A virtio block device (virtio 1.2 section 5.2): one queue, a raw disk image through io_uring.
#pragma once

#include <deque>
#include <map>

#include "devices/virtio/blk_request.hpp"
#include "devices/virtio/blk_state.hpp"
#include "devices/virtio/device.hpp"
#include "devices/virtio/disk_image.hpp"

namespace devices::virtio {

class Blk final : public Device {
  public:
    // `id` is what a guest reads as the disk's serial number, its first 20 bytes.
    static vmm::Result<std::unique_ptr<Blk>> create(std::unique_ptr<DiskImage> image, std::string id);

    DiskImage& image() { return *image_; }

    std::uint32_t type() const override { return kDeviceBlk; }
    vmm::DeviceIdentity identity() const override;
    std::uint64_t features() const override;
    std::span<const std::uint16_t> queue_sizes() const override;
    vmm::Result<void> attach(Transport& transport) override;
    std::span<const std::byte> config() const override { return config_; }
    // Nothing in it may be written: the cache mode is not offered.
    void write_config(std::uint64_t, std::span<const std::byte>) override {}
    void accept(std::uint64_t features) override;
    void process(unsigned queue) override;
    void queue_stopped(unsigned queue) override;
    void reset() override;
    std::size_t in_flight() const override { return requests_.size(); }
    void resumed(Resumed) override {}
    void save(vmm::SnapshotWriter& snapshot, std::uint32_t instance,
              const MmioState& transport) const override;
    vmm::Result<MmioState> restore(vmm::SnapshotReader& snapshot, std::uint32_t instance,
                                   const Check& check) override;

  private:
    using Requests = std::map<std::uint64_t, BlkRequest>;

    // One operation of the ring.
    struct Piece {
        std::uint64_t request = 0;
        DiskRing::Operation operation;
        std::uint64_t at = 0;  // in the request's data
    };

    Blk(std::unique_ptr<DiskImage> image, std::unique_ptr<DiskRing> ring, std::string id);

    vmm::Result<void> take_requests();
    void begin_waiting();
    // False: there is no buffer for more of it now.
    bool begin(std::uint64_t number, BlkRequest& request);
    bool begin_transfer(std::uint64_t number, BlkRequest& request);
    void start(std::uint64_t number, BlkRequest& request, DiskRing::Operation operation, std::uint64_t at);
    void complete();
    void ended(const Piece& piece, int result);
    void transferred(const Piece& piece, BlkRequest& request, int result);
    void answer_if_done(Requests::iterator request);
    void answer(BlkRequest& request);

    const std::unique_ptr<DiskImage> image_;
    const std::unique_ptr<DiskRing> ring_;
    const std::string id_;
    std::array<std::byte, 60> config_{};
    Transport* transport_ = nullptr;
    vmm::EventLoop::Watch completions_;

    bool write_through_ = true;  // the driver does not know how to flush
    // By numbers that are not used again; what waits for buffers in the order of the queue.
    Requests requests_;
    std::deque<std::uint64_t> waiting_;
    std::map<std::uint64_t, Piece> pieces_;
    std::uint64_t next_number_ = 0;
    // Requests below it are from before the queue was stopped: nobody is told of their end, and what comes
    // after waits for it, because the disk would see it in any order.
    std::uint64_t first_valid_ = 0;
};

}  // namespace devices::virtio

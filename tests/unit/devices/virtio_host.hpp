// A virtio device on its transport, with an I/O thread, memory, and a driver that does as the test says.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <future>
#include <thread>
#include <vector>

#include "devices/virtio/mmio_transport.hpp"
#include "tests/unit/devices/fakes.hpp"
#include "vmm/guest/memory.hpp"

namespace tests {

namespace mmio {
inline constexpr std::uint64_t kDeviceFeatures = 0x010;
inline constexpr std::uint64_t kDeviceFeaturesSel = 0x014;
inline constexpr std::uint64_t kDriverFeatures = 0x020;
inline constexpr std::uint64_t kDriverFeaturesSel = 0x024;
inline constexpr std::uint64_t kQueueSel = 0x030;
inline constexpr std::uint64_t kQueueNumMax = 0x034;
inline constexpr std::uint64_t kQueueNum = 0x038;
inline constexpr std::uint64_t kQueueReady = 0x044;
inline constexpr std::uint64_t kQueueNotify = 0x050;
inline constexpr std::uint64_t kInterruptStatus = 0x060;
inline constexpr std::uint64_t kInterruptAck = 0x064;
inline constexpr std::uint64_t kStatus = 0x070;
inline constexpr std::uint64_t kQueueDescLow = 0x080;
inline constexpr std::uint64_t kQueueDriverLow = 0x090;
inline constexpr std::uint64_t kQueueDeviceLow = 0x0a0;
inline constexpr std::uint64_t kConfigGeneration = 0x0fc;
inline constexpr std::uint64_t kConfig = 0x100;
}  // namespace mmio

// One descriptor of a chain.
struct Piece {
    std::uint64_t gpa;
    std::uint32_t size;
    bool writable = false;
};

struct UsedElement {
    std::uint32_t head;
    std::uint32_t written;
    friend bool operator==(const UsedElement&, const UsedElement&) = default;
};

class VirtioHost {
  public:
    static constexpr std::uint16_t kQueueSize = 16;
    static constexpr std::uint64_t kPages = 256;
    static constexpr std::uint64_t kData = 0x80000;  // free for the test
    static constexpr std::uint64_t kVersion1 = std::uint64_t{1} << 32;
    static constexpr std::uint64_t kEventIdx = std::uint64_t{1} << 29;
    static constexpr std::uint64_t kIndirect = std::uint64_t{1} << 28;

    VirtioHost()
        : memory_(std::move(*vmm::GuestMemory::create(
              std::vector<vmm::RegionConfig>{{vmm::Gpa{0}, kPages * vmm::kPageSize}}, vmm::Backing::small))),
          loop_(std::move(*vmm::EventLoop::create())),
          thread_([this] { (void)loop_->run(); }) {}
    ~VirtioHost() {
        transport_.reset();
        loop_->stop();
        thread_.join();
    }

    void make(std::unique_ptr<devices::virtio::Device> device) {
        auto made = devices::virtio::MmioTransport::create(
            std::move(device),
            {"test", 0, memory_, *loop_, [this](const std::string& what) { broken = what; }});
        REQUIRE(made);
        transport_ = std::move(*made);
    }

    devices::virtio::MmioTransport& transport() { return *transport_; }
    vmm::GuestMemory& memory() { return memory_; }
    vmm::EventLoop& loop() { return *loop_; }

    std::uint32_t read(std::uint64_t reg) {
        std::array<std::byte, 4> value{};
        transport_->read(reg, value);
        return vmm::load_le<std::uint32_t>(value.data());
    }
    void write(std::uint64_t reg, std::uint32_t value) { transport_->write(reg, vmm::bytes_of(value)); }
    std::uint64_t offered() {
        write(mmio::kDeviceFeaturesSel, 0);
        const std::uint64_t low = read(mmio::kDeviceFeatures);
        write(mmio::kDeviceFeaturesSel, 1);
        return low | std::uint64_t{read(mmio::kDeviceFeatures)} << 32;
    }
    // virtio 1.2 section 3.1.1, up to and with FEATURES_OK.
    void negotiate(std::uint64_t features) {
        write(mmio::kStatus, 0);
        write(mmio::kStatus, 1);
        write(mmio::kStatus, 3);
        for (const std::uint32_t half : {0U, 1U}) {
            write(mmio::kDriverFeaturesSel, half);
            write(mmio::kDriverFeatures, static_cast<std::uint32_t>(features >> (32 * half)));
        }
        write(mmio::kStatus, 11);
        features_ = features;
    }
    void make_queue(unsigned queue) {
        std::vector<std::byte> zeros(0x3000);
        REQUIRE(memory_.write(vmm::Gpa{table(queue)}, zeros));
        write(mmio::kQueueSel, queue);
        write(mmio::kQueueNum, kQueueSize);
        const auto base = static_cast<std::uint32_t>(table(queue));
        write(mmio::kQueueDescLow, base);
        write(mmio::kQueueDriverLow, base + 0x1000);
        write(mmio::kQueueDeviceLow, base + 0x2000);
        write(mmio::kQueueReady, 1);
        available_[queue] = seen_[queue] = 0;
        next_[queue] = 0;
    }
    void start(std::uint64_t features, unsigned queues) {
        negotiate(features);
        REQUIRE((read(mmio::kStatus) & 8) != 0);
        for (unsigned queue = 0; queue < queues; ++queue) {
            make_queue(queue);
        }
        write(mmio::kStatus, 15);
        transport_->resume();
    }

    static std::uint64_t table(unsigned queue) { return 0x10000 + std::uint64_t{queue} * 0x4000; }
    static std::uint64_t available(unsigned queue) { return table(queue) + 0x1000; }
    static std::uint64_t used(unsigned queue) { return table(queue) + 0x2000; }

    void descriptor(std::uint64_t at, std::uint64_t gpa, std::uint32_t size, std::uint16_t flags,
                    std::uint16_t next) {
        store(at, gpa);
        store(at + 8, size);
        store(at + 12, flags);
        store(at + 14, next);
    }
    // Puts a chain in the queue; descriptors are used round and round.
    std::uint16_t add(unsigned queue, const std::vector<Piece>& pieces) {
        const std::uint16_t head = next_[queue];
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            const std::uint16_t index = next_[queue];
            next_[queue] = static_cast<std::uint16_t>((index + 1) % kQueueSize);
            const bool last = i + 1 == pieces.size();
            descriptor(table(queue) + 16 * index, pieces[i].gpa, pieces[i].size,
                       static_cast<std::uint16_t>((last ? 0 : 1) | (pieces[i].writable ? 2 : 0)),
                       next_[queue]);
        }
        publish(queue, head);
        return head;
    }
    void publish(unsigned queue, std::uint16_t head) {
        store(available(queue) + 4 + 2 * (available_[queue] % kQueueSize), head);
        REQUIRE(memory_.store_ordered(vmm::Gpa{available(queue) + 2}, ++available_[queue]));
    }
    void kick(unsigned queue) { write(mmio::kQueueNotify, queue); }

    // The next `count` used elements, once they are there.
    std::vector<UsedElement> wait_used(unsigned queue, std::size_t count) {
        std::vector<UsedElement> elements;
        while (elements.size() < count) {
            REQUIRE(eventually_used(queue));
            const std::uint64_t at = used(queue) + 4 + 8 * (seen_[queue]++ % kQueueSize);
            elements.push_back({load<std::uint32_t>(at), load<std::uint32_t>(at + 4)});
        }
        return elements;
    }
    std::uint16_t used_index(unsigned queue) {
        return *memory_.load_ordered<std::uint16_t>(vmm::Gpa{used(queue) + 2});
    }
    // Every notification so far has been served.
    void sync() {
        for (int i = 0; i < 2; ++i) {
            std::promise<void> served;
            loop_->post([&] { served.set_value(); });
            served.get_future().wait();
        }
    }
    // Edges since it was asked last.
    std::uint64_t interrupts() {
        std::uint64_t count = 0;
        return ::read(transport_->interrupt_fd(), &count, sizeof count) == sizeof count ? count : 0;
    }
    bool wait_interrupt() {
        pollfd poll{transport_->interrupt_fd(), POLLIN, 0};
        return ::poll(&poll, 1, 60'000) == 1;
    }

    template <typename T>
    T load(std::uint64_t gpa) {
        return *memory_.load<T>(vmm::Gpa{gpa});
    }
    template <typename T>
    void store(std::uint64_t gpa, T value) {
        REQUIRE(memory_.store(vmm::Gpa{gpa}, value));
    }
    std::string text(std::uint64_t gpa, std::size_t size) {
        std::string bytes(size, '\0');
        REQUIRE(memory_.read(vmm::Gpa{gpa}, std::as_writable_bytes(std::span{bytes})));
        return bytes;
    }
    void set_text(std::uint64_t gpa, std::string_view bytes) {
        REQUIRE(memory_.write(vmm::Gpa{gpa}, std::as_bytes(std::span{bytes})));
    }

    std::string broken;  // what the transport reported

  private:
    bool eventually_used(unsigned queue) {
        for (int i = 0; i < 60'000; ++i) {
            if (used_index(queue) != seen_[queue]) {
                return true;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds{1});
        }
        return false;
    }

    vmm::GuestMemory memory_;
    std::unique_ptr<vmm::EventLoop> loop_;
    std::thread thread_;
    std::unique_ptr<devices::virtio::MmioTransport> transport_;
    std::uint64_t features_ = 0;
    std::array<std::uint16_t, 4> available_{};
    std::array<std::uint16_t, 4> seen_{};
    std::array<std::uint16_t, 4> next_{};
};

}  // namespace tests

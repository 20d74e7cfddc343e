// A guest's memory that means the worst: rings and requests of every virtio device are the input's bytes.
// Oracle: the sanitizers, and that a device comes to rest however its driver behaves.
#include "tests/fuzz/virtio.hpp"

namespace {

using devices::virtio::MmioTransport;

constexpr std::uint64_t kMemoryBytes = 256 << 10;  // the least that a region can have
constexpr std::uint64_t kQueueBytes = 0x3000;      // descriptors, available ring, used ring: a page each
constexpr std::size_t kHeaderBytes = 8;
constexpr vmm::Duration kRest = std::chrono::seconds{5};

void write(MmioTransport& transport, std::uint64_t reg, std::uint32_t value) {
    transport.write(reg, vmm::bytes_of(value));
}

// A driver that accepts what it is told to, and puts queue i at i * kQueueBytes.
void start(MmioTransport& transport, std::span<const std::uint8_t> header) {
    write(transport, 0x070, 3);
    write(transport, 0x024, 0);
    // Event index and indirect descriptors; merged receive buffers and announcements, where there are such.
    write(
        transport, 0x020,
        (header[1] & 3U) << 28 | (header[1] & 4U) << 13 | ((header[1] & 8U) != 0 ? 1U << 17 | 1U << 21 : 0));
    write(transport, 0x024, 1);
    write(transport, 0x020, 1);
    write(transport, 0x070, 11);
    for (std::uint32_t queue = 0; queue < transport.queues(); ++queue) {
        const auto base = static_cast<std::uint32_t>(queue * kQueueBytes);
        write(transport, 0x030, queue);
        write(transport, 0x038, 1U << (header[2] % 7));
        write(transport, 0x080, base);
        write(transport, 0x090, base + 0x1000);
        write(transport, 0x0a0, base + 0x2000);
        write(transport, 0x044, 1);
    }
    write(transport, 0x070, 15);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static fuzz::IoThread io;
    static auto memory = vmm::GuestMemory::create(std::vector<vmm::RegionConfig>{{vmm::Gpa{0}, kMemoryBytes}},
                                                  vmm::Backing::small);
    if (size < kHeaderBytes) {
        return 0;
    }
    const std::span header{data, kHeaderBytes};
    vmm::Bytes contents(kMemoryBytes);
    const auto input = std::as_bytes(std::span{data, size}.subspan(kHeaderBytes));
    std::copy_n(input.begin(), std::min(input.size(), contents.size()), contents.begin());
    VERIFY(memory->write(vmm::Gpa{0}, contents).has_value());

    fuzz::Wire wire;
    auto made = MmioTransport::create(fuzz::make_virtio(fuzz::kind_of(header[0]), wire, *io.loop),
                                      {"fuzz", 0, *memory, *io.loop, [](const std::string&) {}});
    VERIFY(made.has_value());
    MmioTransport& transport = **made;
    start(transport, header);
    transport.resume();
    for (std::uint32_t queue = 0; queue < transport.queues(); ++queue) {
        write(transport, MmioTransport::kQueueNotify, queue);
    }
    if ((header[3] & 1) != 0) {
        io.sync();
    }
    if ((header[3] & 2) != 0) {
        write(transport, 0x070, 0);  // a reset in the middle of it
        start(transport, header);
    }
    if ((header[3] & 4) != 0) {
        write(transport, 0x044, 0);  // a queue taken away
    }
    VERIFY(transport.pause(kRest).has_value());
    vmm::SnapshotWriter writer;
    transport.save(writer);
    auto reader = vmm::SnapshotReader::parse(writer.finish());
    VERIFY(reader.has_value() && transport.restore(*reader).has_value());
    transport.resume();
    io.sync();
    VERIFY(transport.pause(kRest).has_value());
    return 0;
}

#include "devices/virtio/factory.hpp"

#include "devices/virtio/blk.hpp"
#include "devices/virtio/rng.hpp"

namespace devices::virtio {

using vmm::Result;

namespace {

struct Maker {
    const std::string& id;
    vmm::EventLoop& loop;
    SerialEvents events;

    Result<Made> operator()(const DiskConfig& config) {
        auto opened = TRY(DiskImage::open(config));
        auto device = TRY(Blk::create(std::move(opened), id));
        vmm::Exclusive* image = &device->image();
        return Made{std::move(device), image, nullptr};
    }
    Result<Made> operator()(const NetConfig& config) {
        Tap tap = TRY(Tap::open(config.tap));
        return Made{TRY(Net::create(std::move(tap), config.mac)), nullptr, nullptr};
    }
    Result<Made> operator()(const ConsoleConfig& config) {
        auto backend = TRY(make_serial_backend(config.backend, loop, std::move(events)));
        auto device = std::make_unique<Console>(std::move(backend));
        Console* console = device.get();
        return Made{std::move(device), nullptr, console};
    }
    Result<Made> operator()(const RngConfig&) { return Made{std::make_unique<Rng>(), nullptr, nullptr}; }
};

vmm::StateId id_of(const DiskConfig&) {
    return BlkState::id;
}
vmm::StateId id_of(const NetConfig&) {
    return NetState::id;
}
vmm::StateId id_of(const ConsoleConfig&) {
    return ConsoleState::id;
}
vmm::StateId id_of(const RngConfig&) {
    return RngState::id;
}

}  // namespace

vmm::StateId state_id_of(const Config& config) {
    return std::visit([](const auto& what) { return id_of(what); }, config.what);
}

Result<vmm::DeviceIdentity> examine(const Config& config) {
    vmm::DeviceIdentity identity{state_id_of(config), config.window, config.id};
    if (const auto* disk = std::get_if<DiskConfig>(&config.what)) {
        identity.bytes = TRY(examine_disk(*disk)) * kSectorBytes;
        identity.read_only = disk->read_only;
    } else if (const auto* net = std::get_if<NetConfig>(&config.what)) {
        TRY(Tap::open(net->tap));  // and closed again
    }
    return identity;
}

Result<Made> make_device(const Config& config, vmm::EventLoop& loop, SerialEvents events) {
    return std::visit(Maker{config.id, loop, std::move(events)}, config.what);
}

}  // namespace devices::virtio

// Manifest: what the guest is and needs, sent before anything else. It names devices by id and version only:
// paths, taps, serial back ends and sockets come solely from the destination's own command line.
#pragma once

#include <string>
#include <vector>

#include "migration/ids.hpp"
#include "vmm/kvm/compatibility.hpp"

namespace migration {

enum class MessageType : std::uint16_t;

struct DeviceEntry {
    std::string state_name;  // vmm::StateId::name of its section
    std::uint32_t instance = 0;
    std::uint16_t version = 0;
    std::string id =
        {};  // the user's name for it, by which the destination finds its host side; empty: it has none
    std::uint64_t bytes = 0;  // of a disk
    bool read_only = false;   // of a disk

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.text("state_name", self.state_name, 32);
        v.field("instance", self.instance);
        v.field("version", self.version);
        v.text("id", self.id, 64);
        v.field("bytes", self.bytes);
        v.field("read_only", self.read_only);
    }
};

struct Manifest {
    static constexpr MessageType type{3};
    static constexpr std::size_t max_body = std::size_t{1} << 20;
    static constexpr std::uint64_t kMaxBootImage = std::uint64_t{1} << 30;

    std::string name;
    Uuid uuid{};
    std::uint64_t epoch = 0;             // ownership epoch of the source; the destination's will be one more
    std::uint64_t ram_bytes = 0;         // vmm::pc_memory_map(ram_bytes) is the memory map
    std::uint64_t used_pages = 0;        // populated when the migration began
    std::uint64_t boot_image_bytes = 0;  // encoded
    std::uint64_t realtime_ns = 0;       // the source's, when it wrote this
    vmm::CpuNeeds cpu;
    std::vector<DeviceEntry> devices;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.text("name", self.name, 64);
        v.field("uuid", self.uuid);
        v.field("epoch", self.epoch);
        v.field("ram_bytes", self.ram_bytes);
        v.field("used_pages", self.used_pages);
        v.field("boot_image_bytes", self.boot_image_bytes);
        v.check(self.boot_image_bytes <= kMaxBootImage, "boot_image_bytes <= 1 GiB");
        v.field("realtime_ns", self.realtime_ns);
        v.part("cpu", self.cpu);
        v.list("devices", self.devices, 256);
    }
};

}  // namespace migration

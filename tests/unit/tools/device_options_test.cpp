#include "tools/vmm/device_options.hpp"

#include <catch2/catch.hpp>

#include "tools/vmm/device_plan.hpp"

using Catch::Matchers::Contains;
using devices::virtio::Config;
using devices::virtio::ConsoleConfig;
using devices::virtio::DiskConfig;
using devices::virtio::NetConfig;
using devices::virtio::RngConfig;
using tools::DeviceSide;
using tools::parse_disk;
using tools::parse_net;

TEST_CASE("a disk is an id, a path and what may be said of it", "[tools]") {
    const auto config = parse_disk("id=data,path=/a/b=c.img,ro,direct");
    REQUIRE(config);
    CHECK(config->id == "data");
    const auto& disk = std::get<DiskConfig>(config->what);
    CHECK(disk.path == "/a/b=c.img");
    CHECK(disk.read_only);
    CHECK(disk.direct);
    CHECK(!std::get<DiskConfig>(parse_disk("path=x,id=y")->what).direct);
    for (const char* text : {"", "id=a", "path=x", "id=a,path=", "id=a,path=x,ro=1", "id=a,path=x,rw",
                             "id=a,path=x,ro,ro", "id=a/b,path=x", "id=a,,path=x", "x.img"}) {
        INFO(text);
        const auto wrong = parse_disk(text);
        REQUIRE(!wrong);
        CHECK_THAT(wrong.error().text(), Contains("give id=NAME,path=FILE"));
    }
}

TEST_CASE("a network interface has an address, and one that comes brings its own", "[tools]") {
    const auto config = parse_net("id=lan,tap=tap0,mac=52:54:00:AB:cd:ef", DeviceSide::run);
    REQUIRE(config);
    CHECK(std::get<NetConfig>(config->what).tap == "tap0");
    CHECK(std::get<NetConfig>(config->what).mac ==
          devices::virtio::MacAddress{0x52, 0x54, 0, 0xab, 0xcd, 0xef});
    const auto made_up = parse_net("id=lan,tap=tap0", DeviceSide::run);
    REQUIRE(made_up);
    CHECK((std::get<NetConfig>(made_up->what).mac[0] & 3) == 2);  // local, of a station
    CHECK(parse_net("id=lan,tap=tap0", DeviceSide::receive));
    CHECK_THAT(parse_net("id=lan,tap=tap0,mac=52:54:00:12:34:56", DeviceSide::receive).error().text(),
               Contains("leave `mac` out"));
    for (const char* mac : {"", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:5g",
                            "52-54-00-12-34-56", "53:54:00:12:34:56", "52:54:00:12:34:56:78"}) {
        INFO(mac);
        CHECK(!parse_net(fmt::format("id=lan,tap=tap0,mac={}", mac), DeviceSide::run));
    }
    CHECK(!parse_net("id=lan", DeviceSide::run));
}

TEST_CASE("devices get windows, disks first, and no two have one id", "[tools]") {
    std::vector<Config> devices{{"rng", 0, RngConfig{}},
                                {"lan", 0, NetConfig{}},
                                {"b", 0, DiskConfig{}},
                                {"a", 0, DiskConfig{}},
                                {"console", 0, ConsoleConfig{}}};
    REQUIRE(tools::place_devices(devices));
    std::string order;
    for (unsigned i = 0; i < devices.size(); ++i) {
        CHECK(devices[i].window == i);
        order += devices[i].id + " ";
    }
    CHECK(order == "b a lan console rng ");
    devices.push_back({"a", 0, NetConfig{}});
    CHECK_THAT(tools::place_devices(devices).error().text(), Contains("two devices have the id \"a\""));
    devices.resize(9);
    CHECK_THAT(tools::place_devices(devices).error().text(), Contains("at most 8"));
}

TEST_CASE("a guest's devices are found by id, in the windows that the guest knows", "[tools]") {
    const std::vector<Config> ours{{"data", 0, DiskConfig{"/no/such/image", false, false}},
                                   {"log", 0, ConsoleConfig{}},
                                   {"spare", 0, ConsoleConfig{}}};
    migration::Manifest manifest;
    manifest.devices = {{"serial-16550", 0, 1},
                        {"virtio-console", 5, 1, "log"},
                        {"virtio-blk", 2, 1, "data", 512, false},
                        {"virtio-rng", 7, 1, "entropy"},
                        {"virtio-blk", 3, 1, "log"},
                        {"virtio-console", 8, 1, "spare"},
                        {"virtio-net", 1, 1, "elsewhere"}};
    const auto plan = tools::plan_devices(manifest, ours);
    REQUIRE(plan.size() == 3);  // the spare console's window is not one of ours
    CHECK((plan[0].id == "log" && plan[0].window == 5));
    CHECK((plan[1].id == "data" && plan[1].window == 2));
    CHECK((plan[2].id == "entropy" && plan[2].window == 7));

    std::vector<migration::Reason> reasons;
    const auto offer = tools::offer_devices(manifest, ours, reasons);
    REQUIRE(reasons.size() == 1);
    CHECK(reasons[0].code == "device_unusable");
    CHECK(reasons[0].where == "device virtio-blk \"data\"");
    CHECK_THAT(reasons[0].what, Contains("No such file"));
    // Nothing else is found wrong with that disk.
    CHECK(std::any_of(offer.begin(), offer.end(), [](const vmm::DeviceIdentity& device) {
        return device.id == "data" && device.bytes == 512;
    }));
}

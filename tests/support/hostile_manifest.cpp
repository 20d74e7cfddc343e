// hostile_manifest ADDRESS PATH: a peer whose manifests name paths wherever a text fits. Exits 0 when each is
// refused.
#include <cstdio>

#include "migration/greeting.hpp"
#include "migration/transport_socket.hpp"

namespace {

using namespace migration;

vmm::Result<PreflightReply> show(const Address& address, const Manifest& manifest) {
    SocketConnector connector{address};
    MessageStream control{TRY(connector.connect({}))};
    TRY(greet(control, make_hello(Purpose::control, random_bytes<16>(), random_bytes<32>()), {}));
    TRY(control.send(manifest));
    return control.expect<PreflightReply>();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: hostile_manifest tcp:ADDR:PORT PATH\n");
        return 2;
    }
    const auto address = Address::parse(argv[1]);
    if (!address) {
        std::fprintf(stderr, "%s\n", address.error().text().c_str());
        return 2;
    }
    Manifest plain;
    plain.name = "guest";
    plain.ram_bytes = 1 << 20;
    plain.cpu.vcpus = 1;
    plain.devices = {{"serial-16550", 0, 1}, {"exit-port", 0, 1}, {"reset-port", 0, 1}, {"rtc-cmos", 0, 1}};
    std::vector<Manifest> hostile(4, plain);
    hostile[0].name = argv[2];
    hostile[1].name = "../bait";
    hostile[2].devices[0].state_name = "file:bait";
    hostile[3].devices.push_back({"unix:./bait", 0, 1});
    for (const Manifest& manifest : hostile) {
        const auto reply = show(*address, manifest);
        if (reply && reply->reasons.empty()) {
            std::fprintf(stderr, "\"%s\" was accepted\n", manifest.name.c_str());
            return 1;
        }
    }
    return 0;
}
